-- How long ended jobs keep their logs and outputs. Jobs end in the order of (ended_us, id), so that
-- one mark says for each of them whether its time is over: what is at or before it was deleted.
CREATE TABLE retention (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    swept_us bigint NOT NULL,
    swept_job bigint NOT NULL
);
INSERT INTO retention VALUES (true, 0, 0);
CREATE INDEX job_by_end ON job (ended_us, id) WHERE ended_us IS NOT NULL;
CREATE INDEX job_output_by_content ON job_output (sha256);

-- Deletes at most `batch` log pieces of the oldest job that ended before cut_us, and moves the mark
-- over it when none is left. Returns 0 when there is nothing to do, or another gateway does it.
CREATE FUNCTION retention_step(cut_us bigint, batch integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    target record;
    gone bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(6011723002) THEN
        RETURN 0;
    END IF;
    SELECT j.id, j.ended_us INTO target FROM job j, retention r
        WHERE j.ended_us IS NOT NULL AND (j.ended_us, j.id) > (r.swept_us, r.swept_job)
            AND j.ended_us < cut_us
        ORDER BY j.ended_us, j.id LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM log_piece l USING (
        SELECT p.day, p.attempt, p.rank, p.stream, p.seq FROM attempt a
        JOIN log_piece p ON p.day = (a.created_us / 86400000000)::integer AND p.attempt = a.uid
        WHERE a.job = target.id LIMIT batch
    ) d WHERE l.day = d.day AND l.attempt = d.attempt AND l.rank = d.rank
        AND l.stream = d.stream AND l.seq = d.seq;
    GET DIAGNOSTICS gone = ROW_COUNT;
    IF gone < batch THEN
        UPDATE retention SET swept_us = target.ended_us, swept_job = target.id;
    END IF;
    RETURN gone + 1;
END
$$;

REVOKE ALL ON retention FROM PUBLIC;
REVOKE ALL ON FUNCTION retention_step(bigint, integer) FROM PUBLIC;
GRANT SELECT ON retention TO sheaf_orchestrator, sheaf_gateway;
GRANT EXECUTE ON FUNCTION retention_step(bigint, integer) TO sheaf_gateway;
