-- migrate:up
-- Claims are placed: each node has its own places in the queue, and what is left to another one is left for a moment.
-- So pairings and all others are numbered each from 1, and a session says since when it is due.
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
    FROM zap.session s
    LEFT JOIN zap.lease l ON l.session_id = s.session_id
    WHERE
        s.desired_state = 'ACTIVE' AND s.state <> 'FAILED'
        AND (s.next_attempt_at IS NULL OR s.next_attempt_at <= clock_timestamp())
        AND (l.incarnation IS NULL OR l.expires_at <= clock_timestamp())
) due;

-- migrate:down
DROP VIEW zap.session_due;
CREATE VIEW zap.session_due AS
SELECT
    session_id, place = 0 AS is_pairing,
    row_number() OVER (ORDER BY place, asked_at, active_at DESC NULLS LAST, session_id) AS turn
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
        greatest(s.last_inbound_at, s.last_acknowledged_send_at, s.paired_at) AS active_at
    FROM zap.session s
    LEFT JOIN zap.lease l ON l.session_id = s.session_id
    WHERE
        s.desired_state = 'ACTIVE' AND s.state <> 'FAILED'
        AND (s.next_attempt_at IS NULL OR s.next_attempt_at <= clock_timestamp())
        AND (l.incarnation IS NULL OR l.expires_at <= clock_timestamp())
) due;
