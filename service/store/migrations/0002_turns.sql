-- migrate:up
-- Sessions wait for their turn to be started: who is next, and what Status says of it.

-- When the owner expects to start the session's process; NULL unless it waits for its turn.
ALTER TABLE zap.lease ADD COLUMN turn_at timestamptz;

-- CONNECTED is evidence of one process. Whoever claims the session vouches for nothing before its own process connects,
-- however long that waits for its turn: the claim says that no epoch of this owner has begun, and the session in which
-- epoch it was connected (NULL: written by a release that did not say).
ALTER TABLE zap.lease ADD COLUMN is_begun boolean NOT NULL DEFAULT true;
ALTER TABLE zap.session ADD COLUMN connected_epoch bigint;

-- Sessions that are wanted, due and nobody's, numbered from 1 in the order in which they are claimed.
CREATE VIEW zap.session_due AS
SELECT
    session_id, place = 0 AS is_pairing,
    row_number() OVER (ORDER BY place, asked_at, active_at DESC NULLS LAST, session_id) AS turn
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
        greatest(s.last_inbound_at, s.last_acknowledged_send_at, s.paired_at) AS active_at
    FROM zap.session s
    LEFT JOIN zap.lease l ON l.session_id = s.session_id
    WHERE
        s.desired_state = 'ACTIVE' AND s.state <> 'FAILED'
        AND (s.next_attempt_at IS NULL OR s.next_attempt_at <= clock_timestamp())
        AND (l.incarnation IS NULL OR l.expires_at <= clock_timestamp())
) due;

-- As before, but with evidence of the present process only, and at its end: in how many seconds its owner expects to
-- start the next one, if that waits for its turn.
CREATE OR REPLACE VIEW zap.session_now AS
SELECT
    s.session_id, s.name, s.user_id, s.labels, s.proxy_url, s.desired_state,
    CASE WHEN s.state = 'CONNECTED' AND NOT l.vouched THEN 'RECONNECTING' ELSE s.state END AS state,
    CASE WHEN s.state = 'CONNECTED' AND NOT l.vouched THEN 'NODE_STOPPED' ELSE s.reason END AS reason,
    s.credentials, s.attempts, s.next_attempt_at, s.replaced_at,
    s.device_jid, s.paired_at, s.account_jid, s.account_lid, s.push_name, s.platform,
    CASE WHEN s.state = 'CONNECTED' AND l.is_same THEN greatest(s.last_connected_at, l.renewed_at)
    ELSE s.last_connected_at
    END AS last_connected_at,
    s.last_disconnected_at, s.last_inbound_at, s.last_acknowledged_send_at,
    s.version, s.create_time, s.update_time,
    CASE WHEN l.live THEN l.node END AS owner, l.epoch, CASE WHEN l.live THEN l.expires_at END AS lease_expires_at,
    coalesce(zap.device_size(s.device_jid), 0) AS creds_size,
    CASE
        WHEN l.live AND s.desired_state = 'ACTIVE' THEN extract(epoch FROM l.turn_at - clock_timestamp())::float8
    END AS turn_in
FROM zap.session s
LEFT JOIN LATERAL (
    SELECT
        lease.node, lease.epoch, lease.expires_at, lease.renewed_at, lease.turn_at,
        lease.incarnation IS NOT NULL AND lease.expires_at > clock_timestamp() AS live,
        -- The lease is that of the process which was connected.
        lease.is_begun AND coalesce(s.connected_epoch, lease.epoch) = lease.epoch AS is_same,
        -- A lease is renewed five times in its life: after half of it without a word nobody vouches any more.
        lease.incarnation IS NOT NULL
        AND lease.is_begun AND coalesce(s.connected_epoch, lease.epoch) = lease.epoch
        AND lease.renewed_at + (lease.expires_at - lease.renewed_at) / 2 > clock_timestamp() AS vouched
    FROM zap.lease
    WHERE lease.session_id = s.session_id
    UNION ALL
    -- A session that nobody ever owned.
    SELECT '', 0, NULL, NULL, NULL, false, false, false
    LIMIT 1
) l ON true;

-- migrate:down
DROP VIEW whatsapp_session;
DROP VIEW zap.session_now;
DROP VIEW zap.session_due;
ALTER TABLE zap.session DROP COLUMN connected_epoch;
ALTER TABLE zap.lease DROP COLUMN turn_at, DROP COLUMN is_begun;
CREATE VIEW zap.session_now AS
SELECT
    s.session_id, s.name, s.user_id, s.labels, s.proxy_url, s.desired_state,
    CASE WHEN s.state = 'CONNECTED' AND NOT l.vouched THEN 'RECONNECTING' ELSE s.state END AS state,
    CASE WHEN s.state = 'CONNECTED' AND NOT l.vouched THEN 'NODE_STOPPED' ELSE s.reason END AS reason,
    s.credentials, s.attempts, s.next_attempt_at, s.replaced_at,
    s.device_jid, s.paired_at, s.account_jid, s.account_lid, s.push_name, s.platform,
    CASE WHEN s.state = 'CONNECTED' THEN greatest(s.last_connected_at, l.renewed_at) ELSE s.last_connected_at
    END AS last_connected_at,
    s.last_disconnected_at, s.last_inbound_at, s.last_acknowledged_send_at,
    s.version, s.create_time, s.update_time,
    CASE WHEN l.live THEN l.node END AS owner, l.epoch, CASE WHEN l.live THEN l.expires_at END AS lease_expires_at,
    coalesce(zap.device_size(s.device_jid), 0) AS creds_size
FROM zap.session s
LEFT JOIN LATERAL (
    SELECT
        lease.node, lease.epoch, lease.expires_at, lease.renewed_at,
        lease.incarnation IS NOT NULL AND lease.expires_at > clock_timestamp() AS live,
        lease.incarnation IS NOT NULL
        AND lease.renewed_at + (lease.expires_at - lease.renewed_at) / 2 > clock_timestamp() AS vouched
    FROM zap.lease
    WHERE lease.session_id = s.session_id
    UNION ALL
    SELECT '', 0, NULL, NULL, false, false
    LIMIT 1
) l ON true;
CREATE VIEW whatsapp_session AS
SELECT
    session_id, state AS status, creds_size > 0 AS has_creds, creds_size, last_connected_at AS last_connected, owner,
    epoch
FROM zap.session_now;
