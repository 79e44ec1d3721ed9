-- Migration 3: rules that only a type or the core held get a name of their own.
--
-- The name of a broken constraint is what an operator, a log and a test see. NOT NULL has none, and
-- settings were checked by the program alone.

-- -- money is given ---------------------------------------------------------------------------
ALTER DOMAIN micro ADD CONSTRAINT money_given CHECK (VALUE IS NOT NULL);

-- -- settings within their bounds -------------------------------------------------------------
-- A setting that is absent has its default. The same bounds as policy_check() in the core
-- (tests/store compares them); each name says them, in seconds where the setting is a time.
CREATE FUNCTION setting_within(settings jsonb, name text, low numeric, high numeric)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN settings -> name IS NULL THEN true
        WHEN jsonb_typeof(settings -> name) <> 'number' THEN false
        ELSE (settings ->> name)::numeric BETWEEN low AND high
             AND (settings ->> name)::numeric = trunc((settings ->> name)::numeric)
        END
$$;
REVOKE ALL ON FUNCTION setting_within(jsonb, text, numeric, numeric) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION setting_within(jsonb, text, numeric, numeric) TO sheaf_orchestrator;

ALTER TABLE policy
    ADD CONSTRAINT policy_settings_is_object CHECK (jsonb_typeof(settings) = 'object'),
    ADD CONSTRAINT policy_fee_ppm_0_to_1000000
        CHECK (setting_within(settings, 'fee_ppm', 0, 1000000)),
    ADD CONSTRAINT policy_lost_after_1s_to_1d
        CHECK (setting_within(settings, 'lost_after_us', 1000000, 86400000000)),
    ADD CONSTRAINT policy_prepare_timeout_1s_to_1d
        CHECK (setting_within(settings, 'prepare_timeout_us', 1000000, 86400000000)),
    ADD CONSTRAINT policy_prepare_progress_1s_to_1d
        CHECK (setting_within(settings, 'prepare_progress_us', 1000000, 86400000000)),
    ADD CONSTRAINT policy_start_timeout_1s_to_1d
        CHECK (setting_within(settings, 'start_timeout_us', 1000000, 86400000000)),
    ADD CONSTRAINT policy_output_timeout_1s_to_7d
        CHECK (setting_within(settings, 'output_timeout_us', 1000000, 604800000000)),
    ADD CONSTRAINT policy_settle_every_1s_to_1h
        CHECK (setting_within(settings, 'settle_every_us', 1000000, 3600000000)),
    ADD CONSTRAINT policy_backoff_first_100ms_to_1h
        CHECK (setting_within(settings, 'backoff_first_us', 100000, 3600000000)),
    ADD CONSTRAINT policy_backoff_max_1d_at_most
        CHECK (setting_within(settings, 'backoff_max_us', 100000, 86400000000)),
    ADD CONSTRAINT policy_backoff_first_up_to_max
        CHECK (CASE WHEN jsonb_typeof(settings -> 'backoff_first_us') = 'number'
                     AND jsonb_typeof(settings -> 'backoff_max_us') = 'number'
               THEN (settings ->> 'backoff_first_us')::numeric
                    <= (settings ->> 'backoff_max_us')::numeric ELSE true END),
    ADD CONSTRAINT policy_resend_after_1s_to_5m
        CHECK (setting_within(settings, 'resend_after_us', 1000000, 300000000)),
    ADD CONSTRAINT policy_mass_silence_min_1_or_more
        CHECK (setting_within(settings, 'mass_silence_min', 1, 4294967295)),
    ADD CONSTRAINT policy_mass_silence_window_1s_to_1h
        CHECK (setting_within(settings, 'mass_silence_window_us', 1000000, 3600000000)),
    ADD CONSTRAINT policy_mass_silence_hold_0_to_1d
        CHECK (setting_within(settings, 'mass_silence_hold_us', 0, 86400000000)),
    ADD CONSTRAINT policy_link_max_age_1m_to_30d
        CHECK (setting_within(settings, 'link_max_age_us', 60000000, 2592000000000)),
    ADD CONSTRAINT policy_probe_every_1s_to_1d
        CHECK (setting_within(settings, 'probe_every_us', 1000000, 86400000000));
