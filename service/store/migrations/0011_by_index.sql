-- migrate:up
-- What is looked at often is found by an index, however many sessions there are.

-- Pages of sessions: the view is computed for what is shown alone.

CREATE INDEX session_state ON zap.session (state, session_id);

-- Ids of the next `most` sessions after one. A state is what callers see; only what is CONNECTED can be seen as another one.
-- Planned anew for each call's filters: a plan for any of them reads all sessions.
CREATE FUNCTION zap.page_of_sessions(after text, of_user text, in_states text[], with_labels jsonb, most integer)
RETURNS SETOF text LANGUAGE plpgsql STABLE ROWS 100 SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    RETURN QUERY
    SELECT s.session_id FROM zap.session s
    WHERE
        s.session_id > after
        AND (of_user = '' OR s.user_id = of_user)
        AND (with_labels = '{}' OR s.labels @> with_labels)
        AND (
            cardinality(in_states) = 0
            OR s.state = any(CASE
                WHEN 'RECONNECTING' = any(in_states) THEN array_append(in_states, 'CONNECTED') ELSE in_states
            END)
            AND (s.state <> 'CONNECTED' OR (
                SELECT seen.state FROM zap.session_now seen WHERE seen.session_id = s.session_id
            ) = any(in_states))
        )
    ORDER BY s.session_id
    LIMIT most;
END
$$;

-- What is due. The session says whether it is wanted, and the lease whether it is somebody's: no index has both, so the
-- lease says too what is wanted. It has a row, then, even if nobody has ever owned the session.
ALTER TABLE zap.lease ADD COLUMN is_wanted boolean NOT NULL DEFAULT false;

CREATE FUNCTION zap.note_wanted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE zap.lease SET is_wanted = false WHERE session_id = OLD.session_id;
    ELSE
        INSERT INTO zap.lease (session_id, is_wanted)
        VALUES (NEW.session_id, NEW.desired_state = 'ACTIVE' AND NEW.state <> 'FAILED')
        ON CONFLICT (session_id) DO UPDATE SET is_wanted = excluded.is_wanted;
    END IF;
    RETURN NULL;
END
$$;

-- Triggers: nodes of the release before write sessions too, while they are replaced.
CREATE TRIGGER wanted_at_once AFTER INSERT ON zap.session FOR EACH ROW
WHEN (NEW.desired_state = 'ACTIVE' AND NEW.state <> 'FAILED')
EXECUTE FUNCTION zap.note_wanted();

CREATE TRIGGER wanted_changes AFTER UPDATE OF desired_state, state ON zap.session FOR EACH ROW
WHEN (
    (OLD.desired_state = 'ACTIVE' AND OLD.state <> 'FAILED') <> (NEW.desired_state = 'ACTIVE' AND NEW.state <> 'FAILED')
)
EXECUTE FUNCTION zap.note_wanted();

CREATE TRIGGER wanted_no_more AFTER DELETE ON zap.session FOR EACH ROW
WHEN (OLD.desired_state = 'ACTIVE' AND OLD.state <> 'FAILED')
EXECUTE FUNCTION zap.note_wanted();

INSERT INTO zap.lease (session_id, is_wanted)
SELECT session_id, true FROM zap.session WHERE desired_state = 'ACTIVE' AND state <> 'FAILED'
ON CONFLICT (session_id) DO UPDATE SET is_wanted = true;

CREATE INDEX lease_unowned ON zap.lease (session_id) WHERE is_wanted AND incarnation IS NULL;
CREATE INDEX session_next_attempt ON zap.session (next_attempt_at)
WHERE desired_state = 'ACTIVE' AND state <> 'FAILED' AND next_attempt_at IS NOT NULL;
-- It was for an order that nobody asks for any more, and every connection wrote to it.
DROP INDEX zap.session_wanted;

-- An index on when leases expire would be written by every renewal of each. A node's leases are renewed together, so it
-- says until when it vouches for all that are wanted: half a lease from its last renewal. NULL: it has passed over some, or
-- is of a release that did not say.
ALTER TABLE zap.node ADD COLUMN heard_until timestamptz;

-- Leases of wanted sessions, without those of nodes that are heard of: all that can be nobody's, or will be before a
-- node says more. Nodes are told apart by a step in the index for each: some have no row.
CREATE VIEW zap.lease_unheard AS
WITH RECURSIVE owner AS (
    (SELECT incarnation FROM zap.lease WHERE incarnation IS NOT NULL ORDER BY incarnation LIMIT 1)
    UNION ALL
    SELECT (
        SELECT lease.incarnation FROM zap.lease WHERE lease.incarnation > owner.incarnation
        ORDER BY lease.incarnation LIMIT 1
    )
    FROM owner WHERE owner.incarnation IS NOT NULL
),
unheard AS (
    SELECT owner.incarnation FROM owner
    WHERE owner.incarnation IS NOT NULL AND NOT EXISTS (
        SELECT FROM zap.node n
        WHERE
            n.incarnation = owner.incarnation
            AND n.heard_until > clock_timestamp() AND n.expires_at > clock_timestamp()
    )
)
SELECT session_id, incarnation, renewed_at, expires_at FROM zap.lease WHERE is_wanted AND incarnation IS NULL
UNION ALL
SELECT owned.* FROM unheard
CROSS JOIN LATERAL (
    SELECT session_id, incarnation, renewed_at, expires_at FROM zap.lease
    WHERE lease.incarnation = unheard.incarnation AND is_wanted
    OFFSET 0
) owned;

-- As before, from these leases.
CREATE OR REPLACE VIEW zap.session_due AS
SELECT
    session_id, place = 0 AS is_pairing,
    row_number() OVER (PARTITION BY place = 0 ORDER BY place, asked_at, active_at DESC NULLS LAST, session_id) AS turn,
    due_since
FROM (
    SELECT
        s.session_id,
        CASE
            -- Somebody waits with the phone in the hand.
            WHEN s.state = 'PAIRING' THEN 0
            -- Somebody has just asked for it.
            WHEN s.state = 'CONNECTING' AND s.attempts = 0 THEN 1
            -- What failed again and again may well do so once more.
            WHEN s.attempts <= 1 THEN 2
            ELSE 3
        END AS place,
        -- First come, first served, where somebody waits; otherwise who was active last is first.
        CASE WHEN s.state = 'PAIRING' OR s.state = 'CONNECTING' AND s.attempts = 0 THEN s.update_time END AS asked_at,
        -- What came in or went out, or else the pairing. Not the connection: all that come back together lost theirs in
        -- the same moment.
        greatest(s.last_inbound_at, s.last_acknowledged_send_at, s.paired_at) AS active_at,
        -- A lease that was given up does not say when. But then the session's state was written, at its process's end.
        greatest(s.update_time, s.next_attempt_at, l.expires_at) AS due_since
    FROM zap.lease_unheard l
    -- OFFSET 0: one by one, by the index. A planner who expects many would read all sessions instead.
    CROSS JOIN LATERAL (SELECT * FROM zap.session WHERE session_id = l.session_id OFFSET 0) s
    WHERE
        s.desired_state = 'ACTIVE' AND s.state <> 'FAILED'
        AND (s.next_attempt_at IS NULL OR s.next_attempt_at <= clock_timestamp())
        AND (l.incarnation IS NULL OR l.expires_at <= clock_timestamp())
) due;

-- How many sessions are to be connected in the whole database: counted by one node for all, once in a while.
CREATE TABLE zap.census (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    wanted bigint NOT NULL DEFAULT 0,
    counted_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO zap.census DEFAULT VALUES;

-- migrate:down
DROP TABLE zap.census;
CREATE OR REPLACE VIEW zap.session_due AS
SELECT
    session_id, place = 0 AS is_pairing,
    row_number() OVER (PARTITION BY place = 0 ORDER BY place, asked_at, active_at DESC NULLS LAST, session_id) AS turn,
    due_since
FROM (
    SELECT
        s.session_id,
        CASE
            WHEN s.state = 'PAIRING' THEN 0
            WHEN s.state = 'CONNECTING' AND s.attempts = 0 THEN 1
            WHEN s.attempts <= 1 THEN 2
            ELSE 3
        END AS place,
        CASE WHEN s.state = 'PAIRING' OR s.state = 'CONNECTING' AND s.attempts = 0 THEN s.update_time END AS asked_at,
        greatest(s.last_inbound_at, s.last_acknowledged_send_at, s.paired_at) AS active_at,
        greatest(s.update_time, s.next_attempt_at, l.expires_at) AS due_since
    FROM zap.session s
    LEFT JOIN zap.lease l ON l.session_id = s.session_id
    WHERE
        s.desired_state = 'ACTIVE' AND s.state <> 'FAILED'
        AND (s.next_attempt_at IS NULL OR s.next_attempt_at <= clock_timestamp())
        AND (l.incarnation IS NULL OR l.expires_at <= clock_timestamp())
) due;
DROP VIEW zap.lease_unheard;
ALTER TABLE zap.node DROP COLUMN heard_until;
CREATE INDEX session_wanted ON zap.session (last_connected_at DESC NULLS LAST)
WHERE desired_state = 'ACTIVE' AND state <> 'FAILED';
DROP INDEX zap.session_next_attempt;
DROP INDEX zap.lease_unowned;
DROP TRIGGER wanted_no_more ON zap.session;
DROP TRIGGER wanted_changes ON zap.session;
DROP TRIGGER wanted_at_once ON zap.session;
DROP FUNCTION zap.note_wanted;
ALTER TABLE zap.lease DROP COLUMN is_wanted;
DROP FUNCTION zap.page_of_sessions;
DROP INDEX zap.session_state;
