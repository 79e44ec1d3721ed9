-- Migration 4: a second wall between tenants. A gateway says for whom it asks, and rows of others
-- are not there for it, whatever the statement says.
--
-- Three settings of the session, which the gateway makes to fit before a request's statements:
--   sheaf.sees_all       't': operators, auditors, and what a gateway looks up for itself
--   sheaf.project   id of the caller's project, '' = none
--   sheaf.provider  id of the caller's provider, '' = none
-- Without them nothing is seen.

CREATE FUNCTION sees_all() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(current_setting('sheaf.sees_all', true) = 't', false);
CREATE FUNCTION seen_project() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('sheaf.project', true), '')::bigint;
CREATE FUNCTION seen_provider() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('sheaf.provider', true), '')::bigint;

-- -- names across the wall ----------------------------------------------------------------------
-- What a party is told of rows that are not its own, and no more of them.

-- A provider is told which job and attempt a lease of its node serves.
CREATE FUNCTION lease_serves(p_attempt bigint) RETURNS TABLE (job uuid, attempt uuid)
LANGUAGE sql STABLE ROWS 1 SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT j.uid, a.uid FROM attempt a JOIN job j ON j.id = a.job WHERE a.id = p_attempt
$$;
-- The reader of a ledger is told the job that a transfer was for …
CREATE FUNCTION job_uid(p_job bigint) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT uid FROM job WHERE id = p_job
$$;
-- … and what kind of account the other side is, not whose.
CREATE FUNCTION purpose_of(p_account bigint) RETURNS account_purpose
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT purpose FROM account WHERE id = p_account
$$;
REVOKE ALL ON FUNCTION lease_serves(bigint), job_uid(bigint), purpose_of(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lease_serves(bigint), job_uid(bigint), purpose_of(bigint)
    TO sheaf_gateway;

-- -- the orchestrator sees all; it is who decides ----------------------------------------------
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['project', 'app_user', 'token', 'join_token', 'account', 'transfer',
        'job', 'attempt', 'gang_rank', 'lease', 'job_event', 'content', 'job_output', 'log_piece']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY orchestrator ON %I TO sheaf_orchestrator '
                       'USING (true) WITH CHECK (true)', name);
    END LOOP;
END
$$;

-- -- what a gateway sees ------------------------------------------------------------------------
-- A row that hangs on another is seen with it. Functions tell whose that one is, and not sub-selects:
-- nested policies made the plan of one job three times as large, and an EXISTS was hashed, which
-- reads a whole table for one row. (SELECT INTO costs half of RETURN EXISTS. A search path of their
-- own would cost as much again: tables are qualified, operators are never looked up in pg_temp, and
-- a gateway may create nothing.)
CREATE FUNCTION project_of_job(p_job bigint) RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    answer bigint;
BEGIN
    SELECT j.project INTO answer FROM public.job j WHERE j.id = p_job;
    RETURN answer;
END
$$;
CREATE FUNCTION project_of_attempt(p_attempt bigint) RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    answer bigint;
BEGIN
    SELECT j.project INTO answer FROM public.attempt a JOIN public.job j ON j.id = a.job
        WHERE a.id = p_attempt;
    RETURN answer;
END
$$;
CREATE FUNCTION project_of_attempt(p_attempt uuid) RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    answer bigint;
BEGIN
    SELECT j.project INTO answer FROM public.attempt a JOIN public.job j ON j.id = a.job
        WHERE a.uid = p_attempt;
    RETURN answer;
END
$$;
CREATE FUNCTION provider_of_node(p_node bigint) RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    answer bigint;
BEGIN
    SELECT n.provider INTO answer FROM public.node n WHERE n.id = p_node;
    RETURN answer;
END
$$;
CREATE FUNCTION owns_account(p_account bigint) RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    answer boolean;
BEGIN
    SELECT c.project = public.seen_project() OR c.provider = public.seen_provider() INTO answer
        FROM public.account c WHERE c.id = p_account;
    RETURN answer;
END
$$;

CREATE POLICY gateway ON project FOR SELECT TO sheaf_gateway
    USING (sees_all() OR id = seen_project());
CREATE POLICY gateway ON token FOR SELECT TO sheaf_gateway
    USING (sees_all() OR project = seen_project() OR provider = seen_provider());
CREATE POLICY gateway ON join_token FOR SELECT TO sheaf_gateway
    USING (sees_all() OR provider = seen_provider());
CREATE POLICY gateway ON app_user FOR SELECT TO sheaf_gateway
    USING (sees_all() OR EXISTS (SELECT FROM token t WHERE t."user" = app_user.id));
CREATE INDEX token_by_user ON token ("user") WHERE "user" IS NOT NULL;

CREATE POLICY gateway ON account FOR SELECT TO sheaf_gateway
    USING (sees_all() OR project = seen_project() OR provider = seen_provider());
CREATE POLICY gateway ON transfer FOR SELECT TO sheaf_gateway
    USING (sees_all() OR owns_account(debit) OR owns_account(credit));

CREATE POLICY gateway ON job FOR SELECT TO sheaf_gateway
    USING (sees_all() OR project = seen_project());
CREATE POLICY gateway ON content FOR SELECT TO sheaf_gateway
    USING (sees_all() OR project = seen_project());
CREATE POLICY gateway ON attempt FOR SELECT TO sheaf_gateway
    USING (sees_all() OR project_of_job(job) = seen_project());
CREATE POLICY gateway ON job_event FOR SELECT TO sheaf_gateway
    USING (sees_all() OR project_of_job(job) = seen_project());
CREATE POLICY gateway ON job_output FOR SELECT TO sheaf_gateway
    USING (sees_all() OR project_of_job(job) = seen_project());
CREATE POLICY gateway ON gang_rank FOR SELECT TO sheaf_gateway
    USING (sees_all() OR project_of_attempt(attempt) = seen_project()
           OR provider_of_node(node) = seen_provider());
CREATE POLICY gateway ON lease FOR SELECT TO sheaf_gateway
    USING (sees_all() OR provider = seen_provider()
           OR project_of_attempt(attempt) = seen_project());

-- Written by a gateway for itself, read for a caller.
CREATE POLICY gateway ON log_piece FOR SELECT TO sheaf_gateway
    USING (sees_all() OR project_of_attempt(attempt) = seen_project());
CREATE POLICY gateway_append ON log_piece FOR INSERT TO sheaf_gateway
    WITH CHECK (sees_all());

-- -- doors beside the wall ----------------------------------------------------------------------
-- A partition that is named itself has no policy of its parent's, and what a gateway never reads
-- it need not be able to.
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT inhrelid::regclass FROM pg_inherits
                JOIN pg_class ON pg_class.oid = inhparent AND relkind = 'p' LOOP
        EXECUTE format('REVOKE ALL ON %s FROM sheaf_gateway', part);
    END LOOP;
END
$$;
REVOKE SELECT ON receipt, idem, journal, node_event FROM sheaf_gateway;
REVOKE EXECUTE ON FUNCTION ledger_verify() FROM sheaf_gateway;
