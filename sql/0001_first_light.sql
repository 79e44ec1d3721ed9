-- Migration 1: every committed fact of Sheaf, and the invariants that no program may break.
--
-- Table = row struct of orchestrator/core/row.h without _row (user_row is app_user, rank_row is
-- gang_rank), column = field. Times are microseconds since 1970, money is micro-units, enums and
-- reasons are their text names, NULL stands for 0. Foreign keys are deferred to the commit: one
-- transaction carries a whole turn of decisions, and its rows refer to each other both ways.

-- -- roles --------------------------------------------------------------------------------------
-- An embedded server has made them already; on a shared server the owner needs CREATEROLE once, or
-- an administrator makes the two.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['sheaf_orchestrator', 'sheaf_gateway'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
    END LOOP;
END
$$;

-- -- closed lists -------------------------------------------------------------------------------
CREATE DOMAIN usec AS bigint CHECK (VALUE > 0);
CREATE DOMAIN micro AS bigint;
CREATE DOMAIN reason AS text CHECK (VALUE ~ '^[a-z][a-z0-9-]{0,63}$');
CREATE DOMAIN sha256_hash AS bytea CHECK (octet_length(VALUE) = 32);
CREATE DOMAIN asset_code AS text CHECK (VALUE ~ '^[A-Z][A-Z0-9]{0,6}$');
CREATE DOMAIN role_name AS text
    CHECK (VALUE IN ('tenant', 'provider', 'operator', 'auditor', 'gateway'));
CREATE DOMAIN actor_name AS text
    CHECK (VALUE IN ('none', 'tenant', 'provider', 'operator', 'platform'));
CREATE DOMAIN fail_class AS text
    CHECK (VALUE IN ('none', 'user', 'no-capacity', 'interruption', 'hardware', 'provider',
                     'unreachable', 'platform'));
CREATE DOMAIN job_state AS text
    CHECK (VALUE IN ('queued', 'preparing', 'starting', 'running', 'recovering', 'preempting',
                     'suspended', 'stopping', 'succeeded', 'failed', 'cancelled', 'expired',
                     'rejected'));
CREATE DOMAIN attempt_state AS text
    CHECK (VALUE IN ('preparing', 'starting', 'running', 'stopping', 'ended'));
CREATE DOMAIN rank_state AS text
    CHECK (VALUE IN ('assigned', 'preparing', 'ready', 'started', 'exited', 'done', 'lost'));
CREATE DOMAIN node_state AS text
    CHECK (VALUE IN ('joining', 'probing', 'ready', 'draining', 'drained', 'gone'));
CREATE DOMAIN tier AS text CHECK (VALUE IN ('claimed', 'measured', 'audited', 'attested'));
CREATE DOMAIN device_class AS text CHECK (VALUE IN ('gpu', 'cpu'));
CREATE DOMAIN slot_kind AS text CHECK (VALUE IN ('whole', 'mig', 'share'));
CREATE DOMAIN account_purpose AS text
    CHECK (VALUE IN ('available', 'escrow', 'earned', 'stake', 'fees', 'rewards', 'external'));
CREATE DOMAIN transfer_kind AS text
    CHECK (VALUE IN ('deposit', 'hold', 'earn', 'fee', 'release', 'refund'));

-- -- one row that a restart must not guess ------------------------------------------------------
-- term: leaderships so far. session: connections of the leader so far; a batch of an older one can
-- no longer land. batch: last committed one.
CREATE TABLE control (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    term bigint NOT NULL DEFAULT 0,
    session bigint NOT NULL DEFAULT 0,
    batch bigint NOT NULL DEFAULT 0,
    next_id bigint NOT NULL DEFAULT 1 CHECK (next_id > 0),
    now_us bigint NOT NULL DEFAULT 0,
    change_seq bigint NOT NULL DEFAULT 0,
    journal_seq bigint NOT NULL DEFAULT 0
);
INSERT INTO control DEFAULT VALUES;

-- -- people and parties -------------------------------------------------------------------------
CREATE TABLE project (
    id bigint PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    name text NOT NULL CONSTRAINT project_name_unique UNIQUE,
    created_us usec NOT NULL
);

CREATE TABLE provider (
    id bigint PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    name text NOT NULL CONSTRAINT provider_name_unique UNIQUE,
    created_us usec NOT NULL
);

CREATE TABLE app_user (
    id bigint PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    name text NOT NULL CONSTRAINT app_user_name_unique UNIQUE,
    role role_name NOT NULL,
    created_us usec NOT NULL
);

CREATE TABLE token (
    id bigint PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    hash sha256_hash NOT NULL CONSTRAINT token_hash_unique UNIQUE,
    prefix text NOT NULL,
    project bigint REFERENCES project DEFERRABLE INITIALLY DEFERRED,
    provider bigint REFERENCES provider DEFERRABLE INITIALLY DEFERRED,
    "user" bigint REFERENCES app_user DEFERRABLE INITIALLY DEFERRED,
    role role_name NOT NULL,
    scopes bigint NOT NULL CHECK (scopes >= 0),
    created_us usec NOT NULL,
    expires_us usec,
    revoked_us usec
);

CREATE TABLE join_token (
    id bigint PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    hash sha256_hash NOT NULL CONSTRAINT join_token_hash_unique UNIQUE,
    provider bigint REFERENCES provider DEFERRABLE INITIALLY DEFERRED,
    uses_left bigint NOT NULL CONSTRAINT join_token_uses_left CHECK (uses_left >= 0),
    created_us usec NOT NULL,
    expires_us usec
);

-- -- hardware -----------------------------------------------------------------------------------
CREATE TABLE node (
    id bigint PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    provider bigint NOT NULL REFERENCES provider DEFERRABLE INITIALLY DEFERRED,
    name text NOT NULL,
    state node_state NOT NULL,
    conditions integer NOT NULL,
    reason reason,
    detail text NOT NULL,
    curve_key bytea NOT NULL CHECK (octet_length(curve_key) = 32),
    sign_key bytea NOT NULL CHECK (octet_length(sign_key) = 32),
    machine sha256_hash NOT NULL,
    region text NOT NULL,
    country text NOT NULL,
    address text NOT NULL,
    port_low integer NOT NULL CHECK (port_low BETWEEN 0 AND 65535),
    port_high integer NOT NULL CHECK (port_high BETWEEN 0 AND 65535),
    probe_port integer NOT NULL CHECK (probe_port BETWEEN 0 AND 65535),
    cpu_milli bigint NOT NULL,
    memory_mib bigint NOT NULL,
    disk_mib bigint NOT NULL,
    runtime text NOT NULL,
    version text NOT NULL,
    price micro NOT NULL CONSTRAINT node_price CHECK (price >= 0),
    notice_s bigint NOT NULL,
    boot bigint NOT NULL CHECK (boot >= 0),
    created_us usec NOT NULL,
    seen_us usec
);
CREATE UNIQUE INDEX node_name_unique ON node (name) WHERE state <> 'gone';
CREATE UNIQUE INDEX node_curve_key_unique ON node (curve_key) WHERE state <> 'gone';
CREATE UNIQUE INDEX node_machine_unique ON node (machine) WHERE state <> 'gone';

CREATE TABLE node_event (
    id bigint NOT NULL,
    node bigint NOT NULL REFERENCES node DEFERRABLE INITIALLY DEFERRED,
    at_us usec NOT NULL,
    from_state node_state,
    to_state node_state NOT NULL,
    conditions integer NOT NULL,
    reason reason,
    actor actor_name NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (id, at_us)
) PARTITION BY RANGE (at_us);
CREATE TABLE node_event_default PARTITION OF node_event DEFAULT;
CREATE INDEX node_event_by_node ON node_event (node, id);

CREATE TABLE device (
    id bigint PRIMARY KEY,
    node bigint NOT NULL REFERENCES node DEFERRABLE INITIALLY DEFERRED,
    ordinal integer NOT NULL CHECK (ordinal >= 0),
    uuid text NOT NULL,
    class device_class NOT NULL,
    vendor text NOT NULL,
    model text NOT NULL,
    nominal_mib bigint NOT NULL,
    measured_mib bigint NOT NULL,
    tier tier NOT NULL,
    offered boolean NOT NULL,
    matmul_gflops bigint NOT NULL,
    copy_mib_s bigint NOT NULL,
    driver text NOT NULL,
    CONSTRAINT device_ordinal_unique UNIQUE (node, ordinal)
);

CREATE TABLE slot (
    id bigint PRIMARY KEY,
    device bigint NOT NULL REFERENCES device DEFERRABLE INITIALLY DEFERRED,
    kind slot_kind NOT NULL,
    ordinal integer NOT NULL,
    vram_mib bigint NOT NULL,
    CONSTRAINT slot_ordinal_unique UNIQUE (device, kind, ordinal)
);

CREATE TABLE link (
    a bigint NOT NULL REFERENCES node DEFERRABLE INITIALLY DEFERRED,
    b bigint NOT NULL REFERENCES node DEFERRABLE INITIALLY DEFERRED,
    rtt_p50_us bigint NOT NULL,
    rtt_p95_us bigint NOT NULL,
    loss_ppm integer NOT NULL,
    bandwidth_kbps bigint NOT NULL,
    reach_ab boolean NOT NULL,
    reach_ba boolean NOT NULL,
    measured_us usec,
    PRIMARY KEY (a, b),
    CONSTRAINT link_ordered CHECK (a < b)
);

-- -- money --------------------------------------------------------------------------------------
-- balance is what the orchestrator decided, posted what the transfers say; they are compared at
-- each commit. Only the trigger on transfer may write posted.
CREATE TABLE account (
    id bigint PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    project bigint REFERENCES project DEFERRABLE INITIALLY DEFERRED,
    provider bigint REFERENCES provider DEFERRABLE INITIALLY DEFERRED,
    purpose account_purpose NOT NULL,
    asset asset_code NOT NULL,
    balance micro NOT NULL,
    posted micro NOT NULL DEFAULT 0,
    CONSTRAINT account_one_owner CHECK (project IS NULL OR provider IS NULL),
    CONSTRAINT account_balance_not_negative CHECK (balance >= 0 OR purpose = 'external'),
    CONSTRAINT account_unique UNIQUE NULLS NOT DISTINCT (project, provider, purpose, asset),
    CONSTRAINT account_asset_unique UNIQUE (id, asset)
);

-- One predecessor per asset and row: the chain cannot fork.
CREATE TABLE transfer (
    id bigint PRIMARY KEY,
    asset asset_code NOT NULL,
    debit bigint NOT NULL,
    credit bigint NOT NULL,
    amount micro NOT NULL CONSTRAINT transfer_amount_positive CHECK (amount > 0),
    kind transfer_kind NOT NULL,
    job bigint,
    lease bigint,
    hold bigint,
    at_us usec NOT NULL,
    memo text NOT NULL,
    prev_hash sha256_hash NOT NULL,
    hash sha256_hash NOT NULL,
    CONSTRAINT transfer_two_accounts CHECK (debit <> credit),
    CONSTRAINT transfer_debit_fkey FOREIGN KEY (debit, asset) REFERENCES account (id, asset)
        DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT transfer_credit_fkey FOREIGN KEY (credit, asset) REFERENCES account (id, asset)
        DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT transfer_chain_unique UNIQUE (asset, prev_hash)
);
CREATE INDEX transfer_by_asset ON transfer (asset, id);
CREATE INDEX transfer_by_debit ON transfer (debit, id);
CREATE INDEX transfer_by_credit ON transfer (credit, id);
CREATE INDEX transfer_by_job ON transfer (job, id) WHERE job IS NOT NULL;

-- -- jobs ---------------------------------------------------------------------------------------
CREATE TABLE job (
    id bigint PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    project bigint NOT NULL REFERENCES project DEFERRABLE INITIALLY DEFERRED,
    token bigint REFERENCES token DEFERRABLE INITIALLY DEFERRED,
    name text NOT NULL,
    state job_state NOT NULL,
    conditions integer NOT NULL,
    reason reason,
    class fail_class NOT NULL,
    detail text NOT NULL,
    spec text NOT NULL CHECK (octet_length(spec) <= 1048576),
    spec_sha256 sha256_hash NOT NULL,
    held micro NOT NULL CONSTRAINT job_held_not_negative CHECK (held >= 0),
    charged micro NOT NULL CONSTRAINT job_charged_not_negative CHECK (charged >= 0),
    hold bigint REFERENCES transfer DEFERRABLE INITIALLY DEFERRED,
    epoch bigint NOT NULL,
    attempts bigint NOT NULL,
    attempt bigint,
    policy_version bigint NOT NULL,
    created_us usec NOT NULL,
    queued_us usec,
    not_before_us usec,
    state_us usec,
    ended_us usec,
    exit_code integer NOT NULL,
    why jsonb,
    CONSTRAINT job_final_is_settled CHECK (
        state NOT IN ('succeeded', 'failed', 'cancelled', 'expired', 'rejected')
        OR (held = 0 AND ended_us IS NOT NULL))
);
CREATE INDEX job_by_project ON job (project, id);
CREATE INDEX job_live ON job (id)
    WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'expired', 'rejected');

ALTER TABLE transfer ADD FOREIGN KEY (job) REFERENCES job DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE transfer ADD FOREIGN KEY (hold) REFERENCES transfer DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE attempt (
    id bigint PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    job bigint NOT NULL REFERENCES job DEFERRABLE INITIALLY DEFERRED,
    term bigint NOT NULL,
    epoch bigint NOT NULL,
    state attempt_state NOT NULL,
    reason reason,
    class fail_class NOT NULL,
    "then" job_state,
    diameter_us bigint NOT NULL,
    price micro NOT NULL CHECK (price >= 0),
    created_us usec NOT NULL,
    started_us usec,
    running_us usec,
    stop_us usec,
    ended_us usec,
    CONSTRAINT attempt_epoch_unique UNIQUE (job, epoch)
);
-- A gang is whole or absent: one living attempt per job.
CREATE UNIQUE INDEX attempt_one_live ON attempt (job) WHERE state <> 'ended';
ALTER TABLE job ADD FOREIGN KEY (attempt) REFERENCES attempt DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE gang_rank (
    id bigint PRIMARY KEY,
    attempt bigint NOT NULL REFERENCES attempt DEFERRABLE INITIALLY DEFERRED,
    rank integer NOT NULL,
    node bigint NOT NULL REFERENCES node DEFERRABLE INITIALLY DEFERRED,
    state rank_state NOT NULL,
    port integer NOT NULL CHECK (port BETWEEN 0 AND 65535),
    exit_code integer NOT NULL,
    reason reason,
    class fail_class NOT NULL,
    detail text NOT NULL,
    state_us usec,
    CONSTRAINT gang_rank_unique UNIQUE (attempt, rank)
);

CREATE TABLE lease (
    id bigint PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    attempt bigint NOT NULL REFERENCES attempt DEFERRABLE INITIALLY DEFERRED,
    rank bigint NOT NULL CONSTRAINT lease_rank_unique UNIQUE
        REFERENCES gang_rank DEFERRABLE INITIALLY DEFERRED,
    node bigint NOT NULL REFERENCES node DEFERRABLE INITIALLY DEFERRED,
    provider bigint NOT NULL REFERENCES provider DEFERRABLE INITIALLY DEFERRED,
    term bigint NOT NULL,
    epoch bigint NOT NULL,
    price micro NOT NULL CHECK (price >= 0),
    fee_ppm integer NOT NULL CHECK (fee_ppm BETWEEN 0 AND 1000000),
    notice_s bigint NOT NULL,
    granted_us usec NOT NULL,
    meter_from_us usec,
    meter_to_us usec,
    receipt_ms bigint NOT NULL CHECK (receipt_ms >= 0),
    billed_ms bigint NOT NULL CHECK (billed_ms >= 0),
    earned micro NOT NULL CHECK (earned >= 0),
    fee micro NOT NULL CHECK (fee >= 0),
    ended_us usec,
    CONSTRAINT lease_meter_forward CHECK (meter_to_us >= meter_from_us)
);
CREATE INDEX lease_by_attempt ON lease (attempt);
CREATE INDEX lease_by_node ON lease (node) WHERE ended_us IS NULL;
ALTER TABLE transfer ADD FOREIGN KEY (lease) REFERENCES lease DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE lease_slot (
    lease bigint NOT NULL REFERENCES lease DEFERRABLE INITIALLY DEFERRED,
    slot bigint NOT NULL REFERENCES slot DEFERRABLE INITIALLY DEFERRED,
    live boolean NOT NULL,
    PRIMARY KEY (lease, slot)
);
CREATE UNIQUE INDEX lease_slot_one_live ON lease_slot (slot) WHERE live;

CREATE TABLE job_event (
    id bigint NOT NULL,
    job bigint NOT NULL REFERENCES job DEFERRABLE INITIALLY DEFERRED,
    attempt bigint,
    at_us usec NOT NULL,
    from_state job_state,
    to_state job_state NOT NULL,
    reason reason,
    actor actor_name NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (id, at_us),
    -- The same pairs as the core's one table (tests/store compares them).
    CONSTRAINT job_event_legal_move CHECK (
        CASE WHEN from_state IS NULL THEN to_state IN ('queued', 'rejected')
        ELSE from_state = to_state OR (from_state, to_state) IN (
            ('queued', 'preparing'), ('queued', 'suspended'), ('queued', 'failed'),
            ('queued', 'cancelled'), ('queued', 'expired'),
            ('preparing', 'starting'), ('preparing', 'recovering'), ('preparing', 'preempting'),
            ('preparing', 'stopping'),
            ('starting', 'running'), ('starting', 'recovering'), ('starting', 'preempting'),
            ('starting', 'stopping'),
            ('running', 'recovering'), ('running', 'preempting'), ('running', 'stopping'),
            ('recovering', 'queued'), ('recovering', 'preparing'), ('recovering', 'stopping'),
            ('recovering', 'failed'), ('recovering', 'cancelled'), ('recovering', 'expired'),
            ('preempting', 'queued'), ('preempting', 'suspended'), ('preempting', 'recovering'),
            ('preempting', 'stopping'),
            ('suspended', 'queued'), ('suspended', 'cancelled'), ('suspended', 'expired'),
            ('stopping', 'recovering'), ('stopping', 'succeeded'), ('stopping', 'failed'),
            ('stopping', 'cancelled'), ('stopping', 'expired'))
        END)
) PARTITION BY RANGE (at_us);
CREATE TABLE job_event_default PARTITION OF job_event DEFAULT;
CREATE INDEX job_event_by_job ON job_event (job, id);

CREATE TABLE receipt (
    id bigint PRIMARY KEY,
    node bigint NOT NULL REFERENCES node DEFERRABLE INITIALLY DEFERRED,
    seq bigint NOT NULL CHECK (seq >= 0),
    at_us usec NOT NULL,
    bytes bytea NOT NULL CHECK (octet_length(bytes) <= 1048576),
    signature bytea NOT NULL CHECK (octet_length(signature) = 64),
    CONSTRAINT receipt_seq_unique UNIQUE (node, seq)
);

CREATE TABLE content (
    id bigint PRIMARY KEY,
    project bigint NOT NULL REFERENCES project DEFERRABLE INITIALLY DEFERRED,
    sha256 sha256_hash NOT NULL,
    size bigint NOT NULL CHECK (size >= 0),
    created_us usec NOT NULL,
    CONSTRAINT content_unique UNIQUE (project, sha256)
);

CREATE TABLE job_output (
    id bigint PRIMARY KEY,
    job bigint NOT NULL REFERENCES job DEFERRABLE INITIALLY DEFERRED,
    attempt bigint NOT NULL REFERENCES attempt DEFERRABLE INITIALLY DEFERRED,
    rank integer NOT NULL,
    path text NOT NULL,
    sha256 sha256_hash NOT NULL,
    size bigint NOT NULL CHECK (size >= 0),
    stored_us usec NOT NULL,
    CONSTRAINT job_output_unique UNIQUE (attempt, rank, path)
);
CREATE INDEX job_output_by_job ON job_output (job);

CREATE TABLE idem (
    token bigint NOT NULL,
    key text NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 127),
    body_hash bytea NOT NULL CHECK (octet_length(body_hash) = 32),
    code reason,
    object uuid,
    at_us usec NOT NULL,
    PRIMARY KEY (token, key)
);

-- -- what others follow -------------------------------------------------------------------------
CREATE TABLE change (
    seq bigint PRIMARY KEY,
    batch bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('job', 'node', 'account')),
    object uuid NOT NULL
);

CREATE TABLE journal (
    seq bigint NOT NULL,
    at_us usec NOT NULL,
    kind text NOT NULL,
    policy_version integer NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (seq, at_us)
) PARTITION BY RANGE (at_us);
CREATE TABLE journal_default PARTITION OF journal DEFAULT;

-- Written by gateways alone. day = attempt.created_us / 86400000000; data is zstd.
CREATE TABLE log_piece (
    day integer NOT NULL,
    attempt uuid NOT NULL,
    rank integer NOT NULL CHECK (rank >= 0),
    stream smallint NOT NULL CHECK (stream IN (1, 2)),
    seq bigint NOT NULL CHECK (seq >= 0),
    at_us bigint NOT NULL,
    raw_size integer NOT NULL CHECK (raw_size >= 0),
    last boolean NOT NULL DEFAULT false,
    data bytea NOT NULL CHECK (octet_length(data) <= 300000),
    PRIMARY KEY (day, attempt, rank, stream, seq)
) PARTITION BY RANGE (day);
CREATE TABLE log_piece_default PARTITION OF log_piece DEFAULT;

CREATE TABLE policy (
    version integer PRIMARY KEY,
    settings jsonb NOT NULL,
    created_us usec NOT NULL,
    active boolean NOT NULL
);
CREATE UNIQUE INDEX policy_one_active ON policy (active) WHERE active;

-- -- leadership ---------------------------------------------------------------------------------
-- First statement of every batch. Locks the control row, so that a successor waits for this batch
-- or this batch waits for the successor and then finds itself deposed.
CREATE FUNCTION fence(p_term bigint, p_session bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    now_term bigint;
    now_session bigint;
BEGIN
    SELECT term, session INTO STRICT now_term, now_session FROM control FOR UPDATE;
    IF now_term <> p_term THEN
        RAISE EXCEPTION 'term % was deposed by term %', p_term, now_term
            USING ERRCODE = 'SF001', CONSTRAINT = 'fence';
    END IF;
    IF now_session <> p_session THEN
        RAISE EXCEPTION 'connection % was given up for connection %', p_session, now_session
            USING ERRCODE = 'SF005', CONSTRAINT = 'fence';
    END IF;
END
$$;

-- -- history is written once --------------------------------------------------------------------
CREATE FUNCTION refuse_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'SF002', CONSTRAINT = 'append_only', TABLE = TG_TABLE_NAME;
END
$$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['transfer', 'job_event', 'node_event', 'receipt', 'journal'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON %I '
                       'FOR EACH ROW EXECUTE FUNCTION refuse_rewrite()', name);
        EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite()', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['job_event', 'node_event', 'journal'] LOOP
        EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite()', name || '_default');
    END LOOP;
END
$$;

-- -- final is final -----------------------------------------------------------------------------
CREATE FUNCTION refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% %: % is final, % refused', TG_TABLE_NAME, OLD.id, OLD.state, NEW.state
        USING ERRCODE = 'SF003', CONSTRAINT = TG_NAME, TABLE = TG_TABLE_NAME;
END
$$;
CREATE TRIGGER job_state_final BEFORE UPDATE ON job FOR EACH ROW
    WHEN (OLD.state IN ('succeeded', 'failed', 'cancelled', 'expired', 'rejected')
          AND NEW.state <> OLD.state)
    EXECUTE FUNCTION refuse_move();
CREATE TRIGGER attempt_state_final BEFORE UPDATE ON attempt FOR EACH ROW
    WHEN (OLD.state = 'ended' AND NEW.state <> OLD.state)
    EXECUTE FUNCTION refuse_move();
CREATE TRIGGER gang_rank_state_final BEFORE UPDATE ON gang_rank FOR EACH ROW
    WHEN (OLD.state IN ('done', 'lost') AND NEW.state <> OLD.state)
    EXECUTE FUNCTION refuse_move();
CREATE TRIGGER node_state_final BEFORE UPDATE ON node FOR EACH ROW
    WHEN (OLD.state = 'gone' AND NEW.state <> OLD.state)
    EXECUTE FUNCTION refuse_move();

-- The terms of a lease are frozen when it is granted, and what ended has ended.
CREATE FUNCTION refuse_lease_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'lease %: its terms are frozen', OLD.id
        USING ERRCODE = 'SF003', CONSTRAINT = TG_NAME, TABLE = TG_TABLE_NAME;
END
$$;
CREATE TRIGGER lease_terms_frozen BEFORE UPDATE ON lease FOR EACH ROW
    WHEN ((OLD.uid, OLD.attempt, OLD.rank, OLD.node, OLD.provider, OLD.term, OLD.epoch, OLD.price,
           OLD.fee_ppm, OLD.granted_us)
          IS DISTINCT FROM
          (NEW.uid, NEW.attempt, NEW.rank, NEW.node, NEW.provider, NEW.term, NEW.epoch, NEW.price,
           NEW.fee_ppm, NEW.granted_us)
          OR NEW.billed_ms < OLD.billed_ms
          OR (OLD.ended_us IS NOT NULL AND NEW.ended_us IS DISTINCT FROM OLD.ended_us))
    EXECUTE FUNCTION refuse_lease_change();
CREATE TRIGGER lease_slot_ended BEFORE UPDATE ON lease_slot FOR EACH ROW
    WHEN (NOT OLD.live AND NEW.live)
    EXECUTE FUNCTION refuse_rewrite();

-- -- the ledger ---------------------------------------------------------------------------------
-- Posts both legs of every new transfer. A leg without its account stops the statement, so what a
-- batch posts sums to zero per asset.
CREATE FUNCTION transfer_post() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    wanted bigint;
    found_rows bigint;
BEGIN
    SELECT count(DISTINCT id) INTO wanted
        FROM (SELECT debit AS id FROM added UNION ALL SELECT credit FROM added) AS legs;
    UPDATE account AS a SET posted = a.posted + d.delta
        FROM (SELECT id, asset, sum(delta)::bigint AS delta
              FROM (SELECT debit AS id, asset, -amount::numeric AS delta FROM added
                    UNION ALL SELECT credit, asset, amount FROM added) AS legs
              GROUP BY id, asset) AS d
        WHERE a.id = d.id AND a.asset = d.asset;
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    IF found_rows <> wanted THEN
        RAISE EXCEPTION 'a transfer names % accounts, % of them exist in its asset', wanted,
            found_rows USING ERRCODE = 'SF004', CONSTRAINT = 'transfer_sum_zero', TABLE = 'transfer';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER transfer_post AFTER INSERT ON transfer
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION transfer_post();

-- At commit: what was decided equals what was posted.
CREATE FUNCTION account_compare() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    row_now account%ROWTYPE;
BEGIN
    SELECT * INTO row_now FROM account WHERE id = NEW.id;
    IF FOUND AND row_now.balance <> row_now.posted THEN
        RAISE EXCEPTION 'account %: balance % is not the sum of its transfers %', NEW.id,
            row_now.balance, row_now.posted
            USING ERRCODE = 'SF004', CONSTRAINT = 'account_follows_transfers', TABLE = 'account';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER account_follows_transfers AFTER INSERT OR UPDATE ON account
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION account_compare();

-- Canonical bytes of one transfer: docs/ledger.md.
CREATE FUNCTION transfer_canon(t transfer) RETURNS bytea
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT int8send(t.id) || int8send(t.debit) || int8send(t.credit) || int8send(t.amount)
        || int8send(CASE t.kind WHEN 'deposit' THEN 0 WHEN 'hold' THEN 1 WHEN 'earn' THEN 2
                    WHEN 'fee' THEN 3 WHEN 'release' THEN 4 WHEN 'refund' THEN 5 END::bigint)
        || int8send(coalesce(t.job, 0)) || int8send(coalesce(t.lease, 0))
        || int8send(coalesce(t.hold, 0)) || int8send(t.at_us)
        || int2send(octet_length(convert_to(t.asset, 'UTF8'))::smallint)
        || convert_to(t.asset, 'UTF8')
        || int2send(octet_length(convert_to(t.memo, 'UTF8'))::smallint)
        || convert_to(t.memo, 'UTF8')
$$;

-- One row per asset: number of transfers, sum of all balances (0), accounts whose balance is not
-- the sum of their transfers (0), and 'ok' or where the chain breaks first. Reads everything.
CREATE FUNCTION ledger_verify()
RETURNS TABLE (asset text, transfers bigint, balance_sum numeric, accounts_off bigint, chain text)
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    WITH legs AS (
        SELECT debit AS id, -amount::numeric AS delta FROM transfer
        UNION ALL SELECT credit, amount FROM transfer
    ), sums AS (
        SELECT id, sum(delta) AS total FROM legs GROUP BY id
    ), accounts AS (
        SELECT a.asset, sum(a.balance) AS balance_sum,
            count(*) FILTER (WHERE a.balance <> coalesce(s.total, 0)
                             OR a.posted <> a.balance) AS accounts_off
        FROM account a LEFT JOIN sums s ON s.id = a.id GROUP BY a.asset
    ), links AS (
        SELECT t.asset, t.id, t.prev_hash = lag(t.hash, 1, '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea)
                    OVER (PARTITION BY t.asset ORDER BY t.id)
                AND t.hash = sha256(t.prev_hash || transfer_canon(t)) AS good
        FROM transfer t
    ), chains AS (
        SELECT l.asset, count(*) AS transfers, min(l.id) FILTER (WHERE NOT l.good) AS broken
        FROM links l GROUP BY l.asset
    )
    SELECT coalesce(a.asset, c.asset)::text, coalesce(c.transfers, 0), coalesce(a.balance_sum, 0),
        coalesce(a.accounts_off, 0),
        CASE WHEN c.broken IS NULL THEN 'ok' ELSE 'broken at transfer ' || c.broken END
    FROM accounts a FULL JOIN chains c ON c.asset = a.asset ORDER BY 1
$$;

-- -- time partitions ----------------------------------------------------------------------------
-- Makes those of this month and the next; rows outside fall into the default partitions. A month
-- that already has rows in a default partition stays there.
CREATE FUNCTION partitions_prepare(now_us bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    month timestamp;
    parent text;
    part text;
    unit text;
    low bigint;
    high bigint;
    taken boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(6011723001);
    FOR step IN 0..1 LOOP
        month := date_trunc('month', to_timestamp(now_us / 1000000) AT TIME ZONE 'UTC')
            + make_interval(months => step);
        FOREACH parent IN ARRAY ARRAY['job_event', 'node_event', 'journal', 'log_piece'] LOOP
            part := parent || '_' || to_char(month, 'YYYYMM');
            CONTINUE WHEN to_regclass(part) IS NOT NULL;
            low := extract(epoch FROM month);
            high := extract(epoch FROM month + interval '1 month');
            IF parent = 'log_piece' THEN
                unit := 'day';
                low := low / 86400;
                high := high / 86400;
            ELSE
                unit := 'at_us';
                low := low * 1000000;
                high := high * 1000000;
            END IF;
            EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE %I >= %s AND %I < %s)',
                           parent || '_default', unit, low, unit, high) INTO taken;
            CONTINUE WHEN taken;
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%s) TO (%s)',
                           part, parent, low, high);
            IF parent <> 'log_piece' THEN
                EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %I '
                               'FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite()', part);
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- -- who may do what ----------------------------------------------------------------------------
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO sheaf_orchestrator, sheaf_gateway;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO sheaf_orchestrator, sheaf_gateway;
GRANT EXECUTE ON FUNCTION ledger_verify(), transfer_canon(transfer)
    TO sheaf_orchestrator, sheaf_gateway;
GRANT EXECUTE ON FUNCTION fence(bigint, bigint), partitions_prepare(bigint) TO sheaf_orchestrator;
GRANT INSERT, UPDATE ON project, provider, app_user, token, join_token, node, device, slot, link,
    job, attempt, gang_rank, lease, lease_slot, content, job_output, idem, policy
    TO sheaf_orchestrator;
GRANT INSERT (id, uid, project, provider, purpose, asset, balance),
    UPDATE (id, uid, project, provider, purpose, asset, balance) ON account TO sheaf_orchestrator;
GRANT UPDATE ON control TO sheaf_orchestrator;
GRANT INSERT ON transfer, job_event, node_event, receipt, journal, change TO sheaf_orchestrator;
GRANT DELETE ON change, idem TO sheaf_orchestrator;
GRANT INSERT ON log_piece TO sheaf_gateway;
