-- Migration 5: the legal moves of a job as a function behind the same rule.
--
-- PostgreSQL reads the stored expression of a CHECK again for every statement that inserts. The list
-- of pairs made that of job_event 40 KB for each partition; a call is read at once, and a session
-- prepares the function's body once.

-- The same pairs as the core's one table (tests/store compares them). From NULL: a new job. PL/pgSQL
-- because a body in SQL would be read for every statement too.
CREATE FUNCTION job_may_move(from_state text, to_state text)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN CASE coalesce(from_state, 'new')
        WHEN to_state THEN true
        WHEN 'new' THEN to_state = ANY ('{queued,rejected}')
        WHEN 'queued' THEN
            to_state = ANY ('{preparing,suspended,failed,cancelled,expired}')
        WHEN 'preparing' THEN to_state = ANY ('{starting,recovering,preempting,stopping}')
        WHEN 'starting' THEN to_state = ANY ('{running,recovering,preempting,stopping}')
        WHEN 'running' THEN to_state = ANY ('{recovering,preempting,stopping}')
        WHEN 'recovering' THEN
            to_state = ANY ('{queued,preparing,stopping,failed,cancelled,expired}')
        WHEN 'preempting' THEN to_state = ANY ('{queued,suspended,recovering,stopping}')
        WHEN 'suspended' THEN to_state = ANY ('{queued,cancelled,expired}')
        WHEN 'stopping' THEN to_state = ANY ('{recovering,succeeded,failed,cancelled,expired}')
        ELSE false
        END;
END
$$;
REVOKE ALL ON FUNCTION job_may_move(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION job_may_move(text, text) TO sheaf_orchestrator;

ALTER TABLE job_event DROP CONSTRAINT job_event_legal_move;
ALTER TABLE job_event ADD CONSTRAINT job_event_legal_move
    CHECK (job_may_move(from_state, to_state));
