-- migrate:up
-- Everything of ours is in the schema zap; whatsmeow's own 17 tables (whatsmeow_*) lie beside it, made by whatsmeow.

CREATE TABLE zap.session (
    session_id text PRIMARY KEY CHECK (session_id ~ '^[a-z0-9-]{1,63}$'),
    name text NOT NULL,
    user_id text NOT NULL,
    labels jsonb NOT NULL CHECK (jsonb_typeof(labels) = 'object'),
    proxy_url text NOT NULL,
    create_request_id text UNIQUE,
    -- SHA-256 of what Create asked for: an Update in between must not turn a repeated Create into a mistake.
    create_fingerprint bytea NOT NULL,
    -- The last epoch of a deleted session of the same id: what still comes in under it is not this session's.
    former_epoch bigint NOT NULL,

    desired_state text NOT NULL DEFAULT 'INACTIVE' CHECK (desired_state IN ('ACTIVE', 'INACTIVE')),
    state text NOT NULL DEFAULT 'UNPAIRED' CHECK (state IN (
        'UNPAIRED', 'PAIRING', 'CONNECTING', 'CONNECTED', 'RECONNECTING', 'DISCONNECTED', 'LOGGED_OUT', 'SUSPENDED',
        'FAILED'
    )),
    reason text NOT NULL DEFAULT '',
    credentials text NOT NULL DEFAULT 'NONE' CHECK (credentials IN ('NONE', 'UNCONFIRMED', 'CONFIRMED')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    replaced_at timestamptz,

    -- What binds the session to its device: the public key is committed before the first code is shown, the jid once
    -- the device is in whatsmeow_device.
    identity_key bytea UNIQUE CHECK (octet_length(identity_key) = 32),
    device_jid text UNIQUE,
    paired_at timestamptz,

    -- The account stays after the credentials are gone: an operator must see which one it was.
    account_jid text NOT NULL DEFAULT '',
    account_lid text NOT NULL DEFAULT '',
    push_name text NOT NULL DEFAULT '',
    platform text NOT NULL DEFAULT '',

    last_connected_at timestamptz,
    last_disconnected_at timestamptz,
    last_inbound_at timestamptz,
    last_acknowledged_send_at timestamptz,

    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),

    -- Credentials that no identity binds would be credentials that no session owns.
    CONSTRAINT credentials_are_bound CHECK (credentials = 'NONE' OR identity_key IS NOT NULL),
    CONSTRAINT connected_is_paired CHECK (state <> 'CONNECTED' OR credentials = 'CONFIRMED'),
    CONSTRAINT resting_is_unwanted CHECK (
        desired_state = 'INACTIVE' OR state NOT IN ('UNPAIRED', 'DISCONNECTED', 'LOGGED_OUT')
    ),
    CONSTRAINT unwanted_is_resting CHECK (
        desired_state = 'ACTIVE' OR state IN ('UNPAIRED', 'DISCONNECTED', 'LOGGED_OUT')
    )
);

CREATE INDEX session_user_id ON zap.session (user_id, session_id);
CREATE INDEX session_labels ON zap.session USING gin (labels jsonb_path_ops);
-- What the reconciler asks for all the time.
CREATE INDEX session_wanted ON zap.session (last_connected_at DESC NULLS LAST)
WHERE desired_state = 'ACTIVE' AND state <> 'FAILED';

-- Apart from zap.session, so that a renewal never waits for somebody who writes an event. No foreign key: the epoch
-- of an id must go on growing even if its session is deleted and made again.
CREATE TABLE zap.lease (
    session_id text PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,
    incarnation uuid,
    node text NOT NULL DEFAULT '',
    renewed_at timestamptz,
    expires_at timestamptz,
    -- Wishes can change twice before the owner looks: Deactivate and Activate, or Delete and Create. The process of
    -- before would go on for what is wanted now, with the codes, or even the account, of what is not. So whoever
    -- withdraws a wish revokes the epoch, and the owner starts another one.
    is_revoked boolean NOT NULL DEFAULT false,
    CONSTRAINT held_leases_expire CHECK ((incarnation IS NULL) = (expires_at IS NULL))
);

CREATE INDEX lease_incarnation ON zap.lease (incarnation);

-- The pairing that a session is in, or its last one. The code is a secret: it is erased with the outcome.
CREATE TABLE zap.pairing (
    session_id text PRIMARY KEY REFERENCES zap.session ON DELETE CASCADE,
    attempt bigint NOT NULL DEFAULT 0,
    code_text text,
    code_position integer,
    -- Of the process that shows it: with the process, the code is dead.
    code_epoch bigint,
    code_expires_at timestamptz,
    outcome text CHECK (outcome IN ('PAIRED', 'TIMED_OUT', 'PASSKEY_REQUIRED', 'REJECTED', 'CANCELLED')),
    reason text NOT NULL DEFAULT '',
    CONSTRAINT ended_pairings_show_no_code CHECK (outcome IS NULL OR code_text IS NULL)
);

-- Identities whose device rows are worth nothing any more. Whoever owns the session next, while no process of it
-- runs, deletes those rows and then the line here: a process that is still alive could write the row once more.
CREATE TABLE zap.discarded_identity (
    identity_key bytea PRIMARY KEY,
    session_id text NOT NULL,
    discard_time timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX discarded_identity_session ON zap.discarded_identity (session_id);

-- The last sequence given to an event of each session. It outlives the session: a sequence is never given twice.
CREATE TABLE zap.event_sequence (
    session_id text PRIMARY KEY,
    last_sequence bigint NOT NULL
);

CREATE TABLE zap.event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- With id, a place in the log that cannot skip a late commit.
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    session_id text NOT NULL,
    sequence bigint NOT NULL,
    epoch bigint NOT NULL,
    -- Number of the frame that carried it; 0 if the node made it.
    frame bigint NOT NULL,
    time timestamptz NOT NULL,
    type text NOT NULL,
    payload bytea NOT NULL,
    CONSTRAINT sequences_are_unique UNIQUE (session_id, sequence)
);

-- A frame that is handed over twice is one event.
CREATE UNIQUE INDEX event_frame ON zap.event (session_id, epoch, frame) WHERE frame > 0;

CREATE TABLE zap.message (
    session_id text NOT NULL REFERENCES zap.session ON DELETE CASCADE,
    request_id text NOT NULL,
    recipient text NOT NULL,
    -- SHA-256 of recipient and content: the same request_id with another content is a mistake of the caller's.
    fingerprint bytea NOT NULL,
    epoch bigint NOT NULL,
    state text NOT NULL DEFAULT 'ACCEPTED' CHECK (state IN (
        'ACCEPTED', 'SENT', 'DELIVERED', 'READ', 'FAILED', 'OUTCOME_UNKNOWN'
    )),
    message_id text NOT NULL DEFAULT '',
    detail text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_time timestamptz,
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (session_id, request_id)
);

CREATE INDEX message_id_of_session ON zap.message (session_id, message_id) WHERE message_id <> '';
CREATE INDEX message_unsettled ON zap.message (session_id) WHERE state = 'ACCEPTED';

-- Bytes of a device's row, NULL if there is none. A function, and plpgsql, because whatsmeow makes and changes its
-- tables by itself: a view on them would be in the way of its upgrades, and they are not there yet when this runs.
CREATE FUNCTION zap.device_size(device_jid text) RETURNS integer LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF device_jid IS NULL OR to_regclass('whatsmeow_device') IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT pg_column_size(d) FROM whatsmeow_device d WHERE d.jid = device_jid);
END
$$;

-- A session as callers see it. CONNECTED is evidence, not memory: somebody must have vouched for it.
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
        -- A lease is renewed five times in its life: after half of it without a word nobody vouches any more.
        lease.incarnation IS NOT NULL
        AND lease.renewed_at + (lease.expires_at - lease.renewed_at) / 2 > clock_timestamp() AS vouched
    FROM zap.lease
    WHERE lease.session_id = s.session_id
    UNION ALL
    -- A session that nobody ever owned.
    SELECT '', 0, NULL, NULL, false, false
    LIMIT 1
) l ON true;

-- For operators: SELECT session_id, status, creds_size, last_connected FROM whatsapp_session.
CREATE VIEW whatsapp_session AS
SELECT
    session_id, state AS status, creds_size > 0 AS has_creds, creds_size, last_connected_at AS last_connected, owner,
    epoch
FROM zap.session_now;

-- migrate:down
DROP VIEW whatsapp_session;
DROP VIEW zap.session_now;
DROP FUNCTION zap.device_size;
DROP TABLE zap.message, zap.event, zap.event_sequence, zap.discarded_identity, zap.pairing, zap.lease, zap.session;
