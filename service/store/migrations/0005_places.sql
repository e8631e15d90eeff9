-- migrate:up
-- Places in the log, for those who watch it: an event's is (xid, id), and is compared below the oldest transaction in
-- flight only.

-- When the event was appended, by this server's clock: `time` is WhatsApp's, and may be days before. Rows that are there
-- already count from now on (one default for all: nothing is rewritten).
ALTER TABLE zap.event ADD COLUMN appended_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE zap.event ALTER COLUMN appended_at SET DEFAULT clock_timestamp();

CREATE INDEX event_place ON zap.event (xid, id);
CREATE INDEX event_place_in_session ON zap.event (session_id, xid, id);

-- What is true of the whole log: one row.
CREATE TABLE zap.event_log (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    -- Signs places that callers hold, so that nobody can make one up. All nodes have it from here.
    token_key bytea NOT NULL DEFAULT sha256(
        (gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text)::bytea
    ) CHECK (octet_length(token_key) = 32),
    -- The place up to which events were deleted: who has read up to there misses nothing, who has not misses some.
    deleted_xid xid8 NOT NULL DEFAULT '0',
    deleted_id bigint NOT NULL DEFAULT 0
);
INSERT INTO zap.event_log DEFAULT VALUES;

-- The next events after a place, in order, as far as the horizon: of all sessions, or of some, and then by an index that
-- nobody else's are in. plpgsql, so that each of the two has a plan of its own; stable, so that it sees what its caller sees.
CREATE FUNCTION zap.events_after(after_xid xid8, after_id bigint, of_sessions text[], most integer)
RETURNS SETOF zap.event LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF of_sessions IS NULL THEN
        RETURN QUERY
        SELECT * FROM zap.event e
        WHERE (e.xid, e.id) > (after_xid, after_id) AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY e.xid, e.id
        LIMIT most;
    ELSE
        RETURN QUERY
        SELECT found.*
        FROM unnest(of_sessions) AS asked (session_id)
        CROSS JOIN LATERAL (
            SELECT * FROM zap.event e
            WHERE
                e.session_id = asked.session_id
                AND (e.xid, e.id) > (after_xid, after_id) AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
            ORDER BY e.xid, e.id
            LIMIT most
        ) found
        ORDER BY found.xid, found.id
        LIMIT most;
    END IF;
END
$$;

-- How far the log goes now. Transactions below the horizon have ended; `settled` is the last event there, or what was
-- deleted last if there is none: the horizon itself may be a number that Postgres gives out again after a crash.
CREATE VIEW zap.event_log_now AS
SELECT
    l.deleted_xid, l.deleted_id,
    coalesce(last.xid, l.deleted_xid) AS settled_xid, coalesce(last.id, l.deleted_id) AS settled_id,
    pg_snapshot_xmin(pg_current_snapshot()) AS horizon
FROM zap.event_log l
LEFT JOIN LATERAL (
    SELECT e.xid, e.id FROM zap.event e
    WHERE (e.xid, e.id) > (l.deleted_xid, l.deleted_id) AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY e.xid DESC, e.id DESC
    LIMIT 1
) last ON true;

-- migrate:down
DROP VIEW zap.event_log_now;
DROP FUNCTION zap.events_after;
DROP TABLE zap.event_log;
DROP INDEX zap.event_place_in_session;
DROP INDEX zap.event_place;
ALTER TABLE zap.event DROP COLUMN appended_at;
