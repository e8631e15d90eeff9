-- All statements that the service sends to Postgres. `-- name:` starts one; service/store/queries.py reads this file.

-- name: ping
SELECT 1;

-- name: lock_session_log
-- Orders the events of one session. Must be the first statement of its transaction: with a transaction number assigned
-- before the wait, a later sequence could become visible before an earlier one.
SELECT pg_advisory_xact_lock(hashtextextended('zap.event:' || $1, 0));

-- name: insert_session
INSERT INTO zap.session (
    session_id, name, user_id, labels, proxy_url, create_request_id, create_fingerprint, former_epoch
)
VALUES ($1, $2, $3, $4, $5, $6, $7, coalesce((SELECT epoch FROM zap.lease WHERE session_id = $1), 0))
ON CONFLICT DO NOTHING
RETURNING session_id;

-- name: session_by_request
SELECT session_id, create_fingerprint FROM zap.session WHERE create_request_id = $1;

-- name: get_session
SELECT *, clock_timestamp() AS now FROM zap.session_now WHERE session_id = $1;

-- name: list_sessions
-- Ids first: the view calls clock_timestamp() for each row, so Postgres would compute all of its rows before it sorts
-- and limits them. OFFSET 0 prevents the same before the join.
SELECT seen.*, clock_timestamp() AS now
FROM zap.page_of_sessions($1, $2, $3, $4, $5) AS page (session_id)
CROSS JOIN LATERAL (SELECT * FROM zap.session_now n WHERE n.session_id = page.session_id OFFSET 0) seen
ORDER BY seen.session_id;

-- name: update_session
UPDATE zap.session SET
    name = coalesce($2, name),
    user_id = coalesce($3, user_id),
    labels = coalesce($4::jsonb, labels),
    proxy_url = coalesce($5, proxy_url),
    version = version + 1,
    update_time = clock_timestamp()
WHERE session_id = $1;

-- name: lock_session
-- The row and the database's time, by which the next transition is decided.
SELECT
    desired_state, state, reason, credentials, attempts, next_attempt_at, replaced_at, identity_key, device_jid,
    version, proxy_url, clock_timestamp() AS now
FROM zap.session
WHERE session_id = $1
FOR UPDATE;

-- name: fence
-- Valid only under the session's row lock, which begin_epoch takes too.
SELECT is_revoked FROM zap.lease WHERE session_id = $1 AND epoch = $2 AND incarnation = $3;

-- name: current_epoch
SELECT epoch FROM zap.lease WHERE session_id = $1;

-- name: write_condition
-- $9: whether the desired state changed; only then the etag changes.
UPDATE zap.session SET
    desired_state = $2,
    state = $3,
    reason = $4,
    credentials = $5,
    attempts = $6,
    next_attempt_at = $7,
    replaced_at = $8,
    version = version + CASE WHEN $9 THEN 1 ELSE 0 END,
    last_connected_at = CASE
        WHEN $3 = 'CONNECTED' OR state = 'CONNECTED' THEN clock_timestamp() ELSE last_connected_at
    END,
    last_disconnected_at = CASE
        WHEN state = 'CONNECTED' AND $3 <> 'CONNECTED' THEN clock_timestamp() ELSE last_disconnected_at
    END,
    connected_epoch = CASE
        WHEN $3 = 'CONNECTED' THEN (SELECT epoch FROM zap.lease l WHERE l.session_id = $1) ELSE connected_epoch
    END,
    paired_at = CASE
        WHEN $5 = 'NONE' THEN NULL
        WHEN $5 = 'CONFIRMED' THEN coalesce(paired_at, clock_timestamp())
        ELSE paired_at
    END,
    update_time = clock_timestamp()
WHERE session_id = $1;

-- name: write_account
-- An empty string means unknown, and keeps the stored value.
UPDATE zap.session SET
    account_jid = coalesce(nullif($2, ''), account_jid),
    account_lid = coalesce(nullif($3, ''), account_lid),
    push_name = coalesce(nullif($4, ''), push_name),
    platform = coalesce(nullif($5, ''), platform),
    device_jid = coalesce(nullif($2, ''), device_jid)
WHERE session_id = $1;

-- name: bind_identity
UPDATE zap.session SET identity_key = $2 WHERE session_id = $1;

-- name: bind_device
UPDATE zap.session SET device_jid = $2, account_jid = $2, credentials = 'UNCONFIRMED' WHERE session_id = $1;

-- name: discard_identity
-- Queues the session's device for deletion: its row is deleted once no process of the session can write it again.
INSERT INTO zap.discarded_identity (identity_key, session_id)
SELECT identity_key, session_id FROM zap.session WHERE session_id = $1 AND identity_key IS NOT NULL
ON CONFLICT DO NOTHING;

-- name: unbind_device
UPDATE zap.session SET identity_key = NULL, device_jid = NULL WHERE session_id = $1;

-- name: discarded_identities
SELECT identity_key FROM zap.discarded_identity WHERE session_id = $1;

-- name: forget_discarded
DELETE FROM zap.discarded_identity WHERE identity_key = any($1::bytea[]);

-- name: device_exists
SELECT EXISTS (SELECT FROM whatsmeow_device WHERE jid = $1);

-- name: unbound_devices
-- Devices that no session names: those of interrupted pairings, and any from outside this service.
SELECT jid, identity_key FROM whatsmeow_device d
WHERE NOT EXISTS (SELECT FROM zap.session s WHERE s.device_jid = d.jid);

-- name: delete_device
-- whatsmeow's foreign keys cascade, so the device's keys are deleted too.
DELETE FROM whatsmeow_device WHERE jid = $1;

-- name: begin_pairing
INSERT INTO zap.pairing (session_id, attempt) VALUES ($1, 1)
ON CONFLICT (session_id) DO UPDATE SET
    attempt = pairing.attempt + 1,
    code_text = NULL, code_position = NULL, code_epoch = NULL, code_expires_at = NULL, outcome = NULL, reason = '';

-- name: show_code
UPDATE zap.pairing SET code_text = $2, code_position = $3, code_expires_at = $4, code_epoch = $5
WHERE session_id = $1 AND outcome IS NULL;

-- name: hide_code
UPDATE zap.pairing SET code_text = NULL, code_position = NULL, code_epoch = NULL, code_expires_at = NULL WHERE session_id = $1;

-- name: end_pairing
UPDATE zap.pairing SET
    code_text = NULL, code_position = NULL, code_epoch = NULL, code_expires_at = NULL, outcome = $2, reason = $3
WHERE session_id = $1;

-- name: get_pairing
-- A code is shown while its process may live: its epoch is the current one, under a live lease.
SELECT
    CASE WHEN l.session_id IS NOT NULL THEN p.code_text END AS code_text, p.code_position, p.code_expires_at,
    p.outcome, p.reason
FROM zap.pairing p
LEFT JOIN zap.lease l
    ON l.session_id = p.session_id AND l.epoch = p.code_epoch AND l.expires_at > clock_timestamp()
WHERE p.session_id = $1;

-- name: delete_session
DELETE FROM zap.session WHERE session_id = $1;

-- name: append_events
-- Needs the session's log lock. migrations/0008_inbound.sql defines the functions.
SELECT * FROM zap.append_events($1, $2, $3, $4, $5, $6);

-- name: append_inbound
-- The whole transaction: the lock, the fence, the events, and the message states from receipts among them.
-- $10 to $13: retry requests of devices (migrations/0010_retry_requests.sql), noted only if the append succeeds.
SELECT
    appended.*,
    CASE
        WHEN places IS NOT NULL AND cardinality($10::text[]) > 0
        THEN zap.note_retry_requests($1, $10, $11, $12, $13)
    END
FROM zap.append_inbound($1, $2, $3, $4, $5, $6, $7, $8, $9) AS appended;

-- name: due_at
-- The due sessions in these slots of the queue: of pairings, or of all others.
SELECT session_id FROM zap.session_due WHERE turn = any($1::bigint[]) AND is_pairing = $2;

-- name: claim_leases
-- Active, due sessions without an owner: pairings, or all others. First those in this node's slots ($6;
-- service/domain/placement.py), then those that were reserved for other nodes for more than $7 seconds. Nodes that
-- claim at once have different slots. If they still meet, they lock the rows in the same order, and the WHERE fails for
-- the second.
WITH due AS (
    SELECT session_id, row_number() OVER (ORDER BY is_mine DESC, turn) AS slot
    FROM (SELECT *, session_id = any($6::text[]) AS is_mine FROM zap.session_due WHERE is_pairing = $5) d
    WHERE is_mine OR due_since <= clock_timestamp() - make_interval(secs => $7)
    ORDER BY slot
    LIMIT $4
),
claimed AS (
    INSERT INTO zap.lease AS l (session_id, incarnation, node, renewed_at, expires_at, is_begun)
    SELECT session_id, $1, $2, clock_timestamp(), clock_timestamp() + make_interval(secs => $3), false FROM due
    ORDER BY session_id
    ON CONFLICT (session_id) DO UPDATE SET
        incarnation = excluded.incarnation,
        node = excluded.node,
        renewed_at = excluded.renewed_at,
        expires_at = excluded.expires_at,
        is_begun = false
    WHERE l.incarnation IS NULL OR l.expires_at <= clock_timestamp()
    RETURNING l.session_id
)
SELECT session_id FROM claimed JOIN due USING (session_id) ORDER BY slot;

-- name: claim_leftovers
-- Ids without an owner that have discarded identities. The node that claims them deletes the devices, even if the
-- session itself was deleted.
INSERT INTO zap.lease AS l (session_id, incarnation, node, renewed_at, expires_at, is_begun)
SELECT DISTINCT
    d.session_id, $1::uuid, $2, clock_timestamp(), clock_timestamp() + make_interval(secs => $3), false
FROM zap.discarded_identity d
LEFT JOIN zap.lease held ON held.session_id = d.session_id
WHERE held.incarnation IS NULL OR held.expires_at <= clock_timestamp()
ORDER BY d.session_id
LIMIT $4
ON CONFLICT (session_id) DO UPDATE SET
    incarnation = excluded.incarnation,
    node = excluded.node,
    renewed_at = excluded.renewed_at,
    expires_at = excluded.expires_at,
    is_begun = false
WHERE l.incarnation IS NULL OR l.expires_at <= clock_timestamp()
RETURNING l.session_id;

-- name: begin_epoch
-- Needs the session's row lock: a writer of the previous epoch has committed, or will be fenced. Only nodes of an
-- earlier release use turn_at (when the owner expects to start the session); it is cleared for them.
UPDATE zap.lease SET
    epoch = epoch + 1,
    is_revoked = false,
    is_begun = true,
    turn_at = NULL,
    renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => $3)
WHERE session_id = $1 AND incarnation = $2 AND expires_at > clock_timestamp()
RETURNING epoch;

-- name: end_stale_backends
-- Terminates backends of this session's processes ($1) before this epoch. An active backend, or one inside a
-- transaction, belongs to the process in its application_name. An idle one behind a pooler keeps the name of its last
-- user and may serve another session next, so it is spared. Without a pooler ($3) it is terminated, because data that
-- the network has delayed may still reach it. Backends of other roles are left out; their state is not visible.
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE
    datname = current_database() AND usename = current_user
    AND starts_with(application_name, $1)
    AND substring(application_name FROM '/([0-9]{1,18})$')::bigint < $2
    AND (state IN ('active', 'idle in transaction') OR $3 AND state = 'idle');

-- name: revoke_epoch
-- A running process must not continue under the new desired state. Needs the session's row lock.
UPDATE zap.lease SET is_revoked = true WHERE session_id = $1;

-- name: revoke_unless_code_is_shown
-- For a new proxy: a code that is shown stays valid.
UPDATE zap.lease SET is_revoked = true
WHERE session_id = $1 AND NOT EXISTS (SELECT FROM zap.pairing WHERE session_id = $1 AND code_text IS NOT NULL);

-- name: renew_leases
-- Renews all leases of a node, and announces its address and capacity. An expired lease is not renewed, even if no
-- other node has taken it. A locked row (of a node that froze inside a transaction, say) is skipped and returned as not
-- renewed: waiting for it would cost the node all other leases. Such a row is read as of the statement's start; if it
-- has another owner since, the next renewal shows that.
-- heard_until: see migrations/0011_by_index.sql. It counts from the statement's start, before the time of any lease.
WITH free AS (
    SELECT session_id, is_wanted FROM zap.lease
    WHERE incarnation = $1 AND expires_at > clock_timestamp()
    FOR NO KEY UPDATE SKIP LOCKED
),
announced AS (
    INSERT INTO zap.node
        (incarnation, node, address, most_sessions, is_draining, expires_at, liveness_scope, backend_pid, heard_until)
    SELECT
        $1, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $2), $7, pg_backend_pid(),
        CASE
            WHEN (SELECT count(*) FROM zap.lease WHERE incarnation = $1 AND is_wanted)
                = (SELECT count(*) FROM free WHERE is_wanted)
            THEN statement_timestamp() + make_interval(secs => $2 / 2)
        END
    ON CONFLICT (incarnation) DO UPDATE SET
        address = excluded.address,
        expires_at = excluded.expires_at,
        is_draining = excluded.is_draining,
        backend_pid = excluded.backend_pid,
        heard_until = excluded.heard_until
),
renewed AS (
    UPDATE zap.lease SET
        renewed_at = clock_timestamp(),
        expires_at = clock_timestamp() + make_interval(secs => $2)
    FROM free
    WHERE lease.session_id = free.session_id
    RETURNING lease.session_id, lease.epoch
)
SELECT session_id, coalesce(renewed.epoch, lease.epoch) AS epoch, renewed.session_id IS NOT NULL AS is_renewed
FROM zap.lease LEFT JOIN renewed USING (session_id)
WHERE lease.incarnation = $1 AND (renewed.session_id IS NOT NULL OR lease.expires_at > clock_timestamp());

-- name: release_lease
-- May run late, delayed by a lock or the network, after its node has claimed the session again. Then either a new epoch
-- has begun and nothing is released, or there is no process yet and begin_epoch finds the lease lost.
UPDATE zap.lease SET incarnation = NULL, expires_at = NULL, node = ''
WHERE session_id = $1 AND incarnation = $2 AND (epoch = $3 OR NOT is_begun)
RETURNING session_id;

-- name: release_orphaned_lease
-- If another epoch has begun meanwhile, the lease is kept.
UPDATE zap.lease SET incarnation = NULL, expires_at = NULL, node = ''
WHERE session_id = $1 AND incarnation = $2 AND epoch = $3;

-- name: release_all_leases
-- Only leases without a begun epoch. A begun one is released by its runner, once its process is certainly dead.
UPDATE zap.lease SET incarnation = NULL, expires_at = NULL, node = '' WHERE incarnation = $1 AND NOT is_begun;

-- name: owner_of
SELECT n.incarnation, n.node, n.address, l.epoch
FROM zap.lease l JOIN zap.node n USING (incarnation)
WHERE l.session_id = $1 AND l.expires_at > clock_timestamp();

-- name: candidates
-- Nodes that are not stopping, except $1 (NULL: none), with their session counts. Nodes whose row ends within 0.5 s are
-- left out: they are killing their processes. A dead node's leases end a moment before its row, so that it would appear
-- as the node with the fewest sessions just when its sessions are claimed.
SELECT n.incarnation, n.node, n.address, n.most_sessions, count(l.session_id)::int AS sessions
FROM zap.node n
LEFT JOIN zap.lease l ON l.incarnation = n.incarnation AND l.expires_at > clock_timestamp()
WHERE n.incarnation IS DISTINCT FROM $1 AND NOT n.is_draining AND n.expires_at > clock_timestamp() + interval '0.5 s'
GROUP BY n.incarnation;

-- name: node_secret_salt
SELECT salt FROM zap.node_secret;

-- name: lock_node_secret
-- is_fresh: a node that used the secret within the last 10 s may not have announced itself yet.
SELECT fingerprint, used_at > clock_timestamp() - interval '10 s' AS is_fresh FROM zap.node_secret FOR UPDATE;

-- name: living_nodes
SELECT node FROM zap.node WHERE expires_at > clock_timestamp() ORDER BY node;

-- name: use_node_secret
UPDATE zap.node_secret SET fingerprint = $1, used_at = clock_timestamp();

-- name: node_is_draining
SELECT EXISTS (SELECT FROM zap.node WHERE is_draining AND expires_at > clock_timestamp());

-- name: idlest_sessions
-- Connected under the current epoch of their lease. Idle since the last message in or out, as in zap.session_due.
SELECT s.session_id FROM zap.lease l JOIN zap.session s USING (session_id)
WHERE
    l.incarnation = $1 AND l.expires_at > clock_timestamp() AND l.is_begun AND NOT l.is_revoked
    AND s.desired_state = 'ACTIVE' AND s.state = 'CONNECTED' AND coalesce(s.connected_epoch, l.epoch) = l.epoch
ORDER BY greatest(s.last_inbound_at, s.last_acknowledged_send_at, s.paired_at) NULLS FIRST, s.session_id
LIMIT $2;

-- name: nodes_are_awaited
-- Whether a node that is not stopping was alive in the last $1 seconds and is silent now (as in `candidates`).
SELECT EXISTS (
    SELECT FROM zap.node
    WHERE NOT is_draining AND expires_at <= clock_timestamp() + interval '0.5 s'
        AND expires_at > clock_timestamp() - make_interval(secs => $1)
);

-- name: hand_over_lease
-- From its owner, whose process is dead, to the target ($3, $4), without a moment in which the session has no owner.
UPDATE zap.lease SET
    incarnation = $3,
    node = $4,
    is_begun = false,
    renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => $5)
WHERE session_id = $1 AND incarnation = $2 AND expires_at > clock_timestamp()
    -- The target may be stopping or dead by now, and another node may have its address.
    AND EXISTS (
        SELECT FROM zap.node
        WHERE node.incarnation = $3 AND NOT is_draining AND node.expires_at > clock_timestamp()
    )
RETURNING session_id;

-- name: neighbours
-- The other nodes of one machine that own sessions or have not expired.
SELECT n.incarnation, n.node FROM zap.node n
WHERE
    n.liveness_scope = $2 AND n.incarnation <> $1
    AND (
        n.expires_at > clock_timestamp()
        OR EXISTS (
            SELECT FROM zap.lease l WHERE l.incarnation = n.incarnation AND l.expires_at > clock_timestamp()
        )
    );

-- name: end_leases_of_dead_node
-- Ends a node's leases, and its candidacy. Returns NULL and does nothing while the backend of its last renewal exists,
-- which ends with the node. So a node that renews its leases cannot be taken for dead, even if its machine is a copy of
-- another one with the same boot id. Locked rows are left for the next call.
WITH dead AS (
    SELECT n.incarnation FROM zap.node n
    WHERE
        n.incarnation = $1
        AND NOT EXISTS (
            SELECT FROM pg_stat_activity a WHERE a.pid = n.backend_pid AND a.datname = current_database()
        )
),
forgotten AS (
    UPDATE zap.node SET expires_at = clock_timestamp()
    FROM dead
    WHERE node.incarnation = dead.incarnation AND node.expires_at > clock_timestamp()
),
free AS (
    SELECT l.session_id FROM zap.lease l JOIN dead USING (incarnation)
    WHERE l.expires_at > clock_timestamp()
    FOR NO KEY UPDATE OF l SKIP LOCKED
),
ended AS (
    UPDATE zap.lease SET expires_at = clock_timestamp() FROM free WHERE lease.session_id = free.session_id
    RETURNING lease.session_id
)
SELECT (SELECT count(*) FROM ended) FROM dead;

-- name: forget_node
-- The node has stopped. Nodes that expired a day ago are removed too.
DELETE FROM zap.node WHERE incarnation = $1 OR expires_at < clock_timestamp() - interval '1 day';

-- name: sessions_to_stop
SELECT l.session_id FROM zap.lease l
LEFT JOIN zap.session s ON s.session_id = l.session_id
WHERE l.incarnation = $1 AND (l.is_revoked OR s.desired_state IS DISTINCT FROM 'ACTIVE');

-- name: fleet_counts
-- Counts for the reconciler. It reads only sessions that indexes show as possibly not connected. A session under a
-- temporary ban is not counted. next_due: seconds until the next session becomes due, because its lease expires (only
-- of silent nodes, since others renew before) or its next attempt comes, or until it has been reserved for its node for
-- $2 seconds. The time is materialized: with few sessions expected, the planner would read the clock for each of them.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now),
looked_at AS (
    SELECT session_id FROM zap.lease_unheard
    UNION
    -- Sessions that wait for a start permit at their owner.
    SELECT session_id FROM zap.session
    WHERE desired_state = 'ACTIVE' AND state <> 'FAILED' AND next_attempt_at <= (SELECT now FROM clock)
)
SELECT
    count(*) FILTER (WHERE paired AND NOT live AND ready) AS due,
    count(*) FILTER (WHERE paired AND NOT live AND ready AND unreserved_at <= now) AS late,
    count(*) FILTER (WHERE paired AND live AND NOT heard) AS silent,
    count(*) FILTER (WHERE paired AND heard AND next_attempt_at <= now) AS waiting,
    count(*) FILTER (WHERE state = 'PAIRING' AND NOT live AND ready) AS pairings,
    count(*) FILTER (WHERE state = 'PAIRING' AND NOT live AND ready AND unreserved_at <= now) AS late_pairings,
    extract(epoch FROM least(
        min(greatest(CASE WHEN live THEN expires_at END, next_attempt_at))
            FILTER (WHERE incarnation IS DISTINCT FROM $1 AND (live OR NOT ready)),
        min(unreserved_at) FILTER (WHERE NOT live AND ready AND unreserved_at > now)
    ) - min(now))::float8 AS next_due
FROM (
    SELECT
        n.now, s.state, s.next_attempt_at, l.incarnation, l.expires_at,
        s.state <> 'PAIRING' AND (s.state <> 'SUSPENDED' OR s.next_attempt_at <= n.now) AS paired,
        s.next_attempt_at IS NULL OR s.next_attempt_at <= n.now AS ready,
        coalesce(l.expires_at > n.now, false) AS live,
        coalesce(l.renewed_at + (l.expires_at - l.renewed_at) / 2 > n.now, false) AS heard,
        -- As in zap.session_due.
        greatest(s.update_time, s.next_attempt_at, l.expires_at) + make_interval(secs => $2) AS unreserved_at
    FROM clock n
    CROSS JOIN looked_at
    -- OFFSET 0, as in zap.session_due.
    CROSS JOIN LATERAL (SELECT * FROM zap.session WHERE session_id = looked_at.session_id OFFSET 0) s
    CROSS JOIN LATERAL (SELECT * FROM zap.lease WHERE session_id = looked_at.session_id OFFSET 0) l
    WHERE s.desired_state = 'ACTIVE' AND s.state <> 'FAILED'
) unsettled;

-- name: leftovers_exist
SELECT EXISTS (
    SELECT FROM zap.discarded_identity d
    LEFT JOIN zap.lease held ON held.session_id = d.session_id
    WHERE held.incarnation IS NULL OR held.expires_at <= clock_timestamp()
);

-- name: keep_epoch
-- Keeps the session's epoch until this transaction ends: begin_epoch, changes of the desired state and deletions lock
-- this row. The next statement checks the epoch, because it must see what was committed while this one waited.
SELECT FROM zap.session WHERE session_id = $1 FOR KEY SHARE;

-- name: accept_message
-- Fenced by its WHERE, after keep_epoch: only the session's owner accepts a new message, and only while the session
-- exists. It does not lock the lease, because a renewal skips locked rows and some sessions send all the time.
-- The message begins at once if that is asked and none waits; it is refused if so many wait.
INSERT INTO zap.message
    (session_id, request_id, recipient, fingerprint, epoch, payload_type, payload, secret, begun_epoch, kind)
SELECT $1, $2, $3, $4, l.epoch, $7, $8, $9, CASE WHEN $10::boolean AND waiting.length = 0 THEN l.epoch END, $12
FROM zap.lease l
JOIN zap.session s USING (session_id)
CROSS JOIN (
    SELECT count(*) AS length FROM (
        SELECT FROM zap.message
        WHERE session_id = $1 AND state = 'ACCEPTED' AND payload IS NOT NULL AND begun_epoch IS NULL
        LIMIT $11
    ) queued
) waiting
WHERE l.session_id = $1 AND l.epoch = $5 AND l.incarnation = $6 AND l.expires_at > clock_timestamp()
    AND NOT l.is_revoked AND waiting.length < $11
ON CONFLICT DO NOTHING
RETURNING *;

-- name: list_messages
SELECT m.*, unreadable_since, is_resend_failed
FROM zap.message m
CROSS JOIN LATERAL (
    SELECT min(asked_at) AS unreadable_since, bool_or(has_failed) AS is_resend_failed
    FROM zap.retry_request r WHERE r.session_id = m.session_id AND r.request_id = m.request_id
) asked
WHERE
    m.session_id = $1
    AND ($2 = '' OR m.recipient = $2 OR m.chat = $2)
    AND ($3::text[] = '{}' OR m.state = ANY ($3))
    AND ($4::timestamptz IS NULL OR m.create_time >= $4)
    AND ($5::timestamptz IS NULL OR (m.create_time, m.request_id) < ($5, $6::text))
ORDER BY m.create_time DESC, m.request_id DESC
LIMIT $7;

-- name: cancel_message
UPDATE zap.message SET
    state = 'FAILED', detail = $3, payload_type = NULL, payload = NULL, secret = NULL, update_time = clock_timestamp()
WHERE session_id = $1 AND request_id = $2 AND state = 'ACCEPTED' AND payload IS NOT NULL AND begun_epoch IS NULL;

-- name: begin_next_message
SELECT * FROM zap.begin_next_message($1, $2, $3, $4);

-- name: requeue_message
-- Has a message wait again that was begun in this epoch and certainly did not leave.
UPDATE zap.message SET begun_epoch = NULL
WHERE session_id = $1 AND request_id = $2 AND state = 'ACCEPTED' AND begun_epoch = $3 AND payload IS NOT NULL;

-- name: sent_message_id
SELECT zap.sent_message_id(s.device_jid, m.secret, m.create_time)
FROM zap.message m JOIN zap.session s USING (session_id)
WHERE m.session_id = $1 AND m.request_id = $2;

-- name: sessions_with_queue
-- The sessions of a node in which messages wait.
SELECT DISTINCT m.session_id FROM zap.message m JOIN zap.lease l USING (session_id)
WHERE m.state = 'ACCEPTED' AND m.payload IS NOT NULL AND m.begun_epoch IS NULL AND l.incarnation = $1;

-- name: queue_is_full
SELECT count(*) >= $2 FROM (
    SELECT FROM zap.message
    WHERE session_id = $1 AND state = 'ACCEPTED' AND payload IS NOT NULL AND begun_epoch IS NULL
    LIMIT $2
) queued;

-- name: get_message
SELECT m.*, unreadable_since, is_resend_failed
FROM zap.message m
CROSS JOIN LATERAL (
    SELECT min(asked_at) AS unreadable_since, bool_or(has_failed) AS is_resend_failed
    FROM zap.retry_request r WHERE r.session_id = m.session_id AND r.request_id = m.request_id
) asked
WHERE m.session_id = $1 AND m.request_id = $2;

-- name: settle_message
-- A settled message never changes. An acknowledgement by WhatsApp is also noted as evidence for the session.
WITH settled AS (
    UPDATE zap.message SET
        state = $3, message_id = $4, detail = $5, sent_time = $6, chat = $8, update_time = clock_timestamp(),
        payload_type = NULL, payload = NULL, secret = NULL
    WHERE session_id = $1 AND request_id = $2 AND state = 'ACCEPTED' AND begun_epoch = $7
    RETURNING *
),
noted AS (
    UPDATE zap.session SET last_acknowledged_send_at = clock_timestamp()
    WHERE session_id = $1 AND EXISTS (SELECT FROM settled WHERE state = 'SENT')
)
SELECT * FROM settled;

-- name: deliver_messages
SELECT zap.deliver_messages($1, $2, $3);

-- name: settle_interrupted
SELECT zap.settle_interrupted($1, $2);

-- name: token_key
SELECT token_key FROM zap.event_log;

-- name: is_log_restored
-- True if the log contains numbers of transactions that have not begun on this server.
SELECT
    EXISTS (SELECT FROM zap.event WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))
    OR EXISTS (SELECT FROM zap.event_log WHERE deleted_xid >= pg_snapshot_xmax(pg_current_snapshot()));

-- name: settle_restored_events
-- No transaction has the number 1 or 2.
UPDATE zap.event SET xid = '1' WHERE xid <> '1';

-- name: settle_restored_log
UPDATE zap.event_log SET
    token_key = sha256((gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text)::bytea),
    deleted_xid = '0',
    deleted_id = 0;

-- name: log_bounds
-- has_asked: whether the log position ($1, $2) can be one of this database. Its transaction number must have been
-- assigned, and its event, if it names one, must exist or be the last deleted one, after which nothing is missing.
-- (Earlier positions are expired.)
SELECT
    deleted_xid::text::bigint AS deleted_xid, deleted_id,
    settled_xid::text::bigint AS settled_xid, settled_id,
    $1::text::xid8 <= pg_snapshot_xmax(pg_current_snapshot())
    AND (
        $2 = 0 OR ($1::text::xid8, $2) = (deleted_xid, deleted_id)
        OR EXISTS (SELECT FROM zap.event WHERE event.xid = $1::text::xid8 AND event.id = $2)
    ) AS has_asked
FROM zap.event_log_now;

-- name: unknown_sessions
-- The first of these ids that has no session and never had an event.
SELECT asked.session_id FROM unnest($1::text[]) WITH ORDINALITY AS asked (session_id, number)
WHERE NOT EXISTS (SELECT FROM zap.session s WHERE s.session_id = asked.session_id)
    AND NOT EXISTS (SELECT FROM zap.event_sequence s WHERE s.session_id = asked.session_id)
ORDER BY asked.number LIMIT 1;

-- name: read_log
-- Scans the next $3 events after the position ($1, $2) and below the horizon, of all sessions or of those in $8.
-- Returns those that pass the filter ($5 types, $6 user, $7 labels, $9 sessions; NULL: all) and fit into $4 bytes of
-- payload, at least one. It is one statement, so that one snapshot decides: an event is either seen or above the
-- horizon. Without events there is one row.
WITH log AS MATERIALIZED (
    SELECT
        deleted_xid::text::bigint AS deleted_xid, deleted_id,
        settled_xid::text::bigint AS settled_xid, settled_id,
        horizon,
        clock_timestamp() AS read_time
    FROM zap.event_log_now
),
scanned AS MATERIALIZED (
    SELECT * FROM zap.events_after($1::text::xid8, $2, $8, $3)
),
chosen AS (
    SELECT
        e.*, s.user_id, s.labels,
        sum(octet_length(e.payload)) OVER (ORDER BY e.xid, e.id) - octet_length(e.payload) AS bytes_before
    FROM scanned e
    LEFT JOIN zap.session s ON s.session_id = e.session_id
    WHERE
        ($5::text[] IS NULL OR e.type = any($5))
        AND ($6::text IS NULL OR s.user_id = $6)
        AND ($7::jsonb IS NULL OR s.labels @> $7)
        AND ($9::text[] IS NULL OR e.session_id = any($9))
)
SELECT
    log.deleted_xid, log.deleted_id, log.settled_xid, log.settled_id, log.read_time,
    (SELECT count(*) FROM scanned) AS scanned,
    last.xid::text::bigint AS last_xid, last.id AS last_id,
    (SELECT count(*) FROM chosen) AS passed,
    -- Reads the end of the index once; an EXISTS would scan the whole table for each row.
    coalesce((SELECT event.xid FROM zap.event ORDER BY event.xid DESC, event.id DESC LIMIT 1) >= log.horizon, false)
        AS is_held,
    (SELECT max(id) FROM zap.event) AS newest_id,
    c.xid::text::bigint AS xid, c.id, c.session_id, c.sequence, c.time, c.appended_at, c.type, c.payload, c.user_id,
    c.labels
FROM log
LEFT JOIN (SELECT xid, id FROM scanned ORDER BY xid DESC, id DESC LIMIT 1) last ON true
LEFT JOIN (SELECT * FROM chosen WHERE bytes_before < $4) c ON true
ORDER BY c.xid, c.id;

-- name: begin_upkeep
-- Locks maintenance in the whole database until the transaction ends. False: another node is at it.
SELECT pg_try_advisory_xact_lock(hashtextextended('zap.upkeep', 0));

-- name: trim_events
-- Deletes, of the $2 oldest events by log position, those before the first that was appended less than $1 ago, and
-- advances the deleted position with them. Events above the horizon have not been delivered and stay. The scan begins
-- after the deleted position, because the index keeps deleted entries until a vacuum. An array, because for a join the
-- planner would read the whole log.
WITH oldest AS MATERIALIZED (
    SELECT found.* FROM zap.event_log
    CROSS JOIN LATERAL (
        SELECT xid, id, appended_at > statement_timestamp() - $1::interval AS is_young
        FROM zap.event e
        WHERE (e.xid, e.id) > (deleted_xid, deleted_id) AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY e.xid, e.id
        LIMIT $2
    ) found
),
deletable AS MATERIALIZED (
    SELECT xid, id FROM (
        SELECT *, bool_or(is_young) OVER (ORDER BY xid, id) AS is_kept FROM oldest
    ) checked
    WHERE NOT is_kept
),
moved AS (
    UPDATE zap.event_log SET deleted_xid = last.xid, deleted_id = last.id
    FROM (SELECT xid, id FROM deletable ORDER BY xid DESC, id DESC LIMIT 1) last
),
deleted AS (
    DELETE FROM zap.event WHERE id = ANY (ARRAY(SELECT id FROM deletable)) RETURNING true
)
SELECT count(*) FROM deleted;

-- name: trim_messages
WITH deleted AS (
    DELETE FROM zap.message WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM zap.message
        WHERE create_time <= statement_timestamp() - $1::interval AND state <> 'ACCEPTED'
        ORDER BY create_time LIMIT $2
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING true
)
SELECT count(*) FROM deleted;

-- name: trim_event_buffer
-- Deletes whatsmeow's rows about decrypted messages (times in milliseconds) whose plaintext is cleared: their event is
-- in the log. A row with its plaintext was not acknowledged. WhatsApp may send its message again for 14 days, and
-- without the row it could not be decrypted.
WITH deleted AS (
    DELETE FROM whatsmeow_event_buffer WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM whatsmeow_event_buffer
        WHERE
            insert_timestamp <= (extract(epoch FROM statement_timestamp() - $1::interval) * 1000)::bigint
            AND plaintext IS NULL
        ORDER BY insert_timestamp LIMIT $2
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING true
)
SELECT count(*) FROM deleted;

-- name: trim_retry_buffer
-- Deletes sent messages that whatsmeow keeps for retry requests (times in milliseconds). By device, because whatsmeow's
-- index is (our_jid, timestamp).
WITH deleted AS (
    DELETE FROM whatsmeow_retry_buffer WHERE ctid = ANY (ARRAY(
        SELECT old.ctid FROM whatsmeow_device d
        CROSS JOIN LATERAL (
            SELECT b.ctid FROM whatsmeow_retry_buffer b
            WHERE
                b.our_jid = d.jid
                AND b.timestamp <= (extract(epoch FROM statement_timestamp() - $1::interval) * 1000)::bigint
            ORDER BY b.timestamp LIMIT $2
            FOR UPDATE SKIP LOCKED
        ) old
        LIMIT $2
    ))
    RETURNING true
)
SELECT count(*) FROM deleted;

-- name: oldest_event_age
SELECT extract(epoch FROM clock_timestamp() - found.appended_at)::float8
FROM zap.event_log
CROSS JOIN LATERAL (
    SELECT appended_at FROM zap.event e WHERE (e.xid, e.id) > (deleted_xid, deleted_id) ORDER BY e.xid, e.id LIMIT 1
) found;

-- name: session_counts
SELECT counts, extract(epoch FROM clock_timestamp() - counts_at)::float8 AS age_s FROM zap.census;

-- name: begin_census
-- Locks the count of sessions until the transaction ends. False: another node counts.
SELECT pg_try_advisory_xact_lock(hashtextextended('zap.census', 0));

-- name: count_sessions
-- As Status shows them, except WAITING_FOR_TURN, which is not stored; and how many are paired and to be connected. The rule
-- of zap.session_now, with one join of all leases: the view looks each one up, and takes three times as long.
SELECT coalesce(jsonb_agg(jsonb_build_array(state, reason, sessions, wanted)), '[]')
FROM (
    SELECT
        CASE WHEN is_lost THEN 'RECONNECTING' ELSE state END AS state,
        CASE WHEN is_lost THEN 'NODE_STOPPED' ELSE reason END AS reason,
        count(*) AS sessions,
        count(*) FILTER (WHERE
            desired_state = 'ACTIVE' AND state NOT IN ('FAILED', 'PAIRING')
            AND (state <> 'SUSPENDED' OR next_attempt_at <= clock_timestamp())
        ) AS wanted
    FROM (
        SELECT
            s.state, s.reason, s.desired_state, s.next_attempt_at,
            s.state = 'CONNECTED' AND (
                l.incarnation IS NULL OR NOT l.is_begun OR s.connected_epoch <> l.epoch
                OR l.renewed_at + (l.expires_at - l.renewed_at) / 2 <= clock_timestamp()
            ) AS is_lost
        FROM zap.session s
        LEFT JOIN zap.lease l USING (session_id)
    ) seen
    GROUP BY 1, 2
) counted;

-- name: keep_session_counts
UPDATE zap.census SET counts = $1, counts_at = clock_timestamp();

-- name: horizon_holder
-- The transaction whose number is the horizon, if it is in flight. It is if a later one has ended (is_certain), or if a
-- backend or prepared transaction has the number; otherwise the number may not be assigned yet. Without
-- pg_read_all_stats, pg_stat_activity shows little of other roles' backends. Its transaction numbers have 32 bits.
WITH horizon AS MATERIALIZED (
    SELECT
        pg_snapshot_xmin(s) AS xid, (pg_snapshot_xmin(s)::text::bigint & 4294967295)::text::xid AS short,
        pg_snapshot_xmin(s) < pg_snapshot_xmax(s) AS is_certain
    FROM pg_current_snapshot() s
)
SELECT
    h.xid::text::bigint AS xid,
    coalesce(a.datname, p.database, '') AS database,
    coalesce(nullif(a.application_name, ''), a.backend_type, p.gid, 'somebody') AS application,
    coalesce(a.pid, 0) AS pid,
    coalesce(a.state, CASE WHEN p.gid IS NOT NULL THEN 'prepared' END, 'unknown') AS state
FROM horizon h
LEFT JOIN pg_stat_activity a ON a.backend_xid = h.short
LEFT JOIN pg_prepared_xacts p ON p.transaction = h.short
WHERE h.is_certain OR a.pid IS NOT NULL OR p.gid IS NOT NULL
LIMIT 1;

-- name: prepared_transactions
SELECT gid, quote_literal(gid) AS literal, owner, database, prepared FROM pg_prepared_xacts ORDER BY prepared;

-- name: get_device_jid
SELECT device_jid FROM zap.session WHERE session_id = $1;

-- name: has_contact_tables
SELECT to_regclass('whatsmeow_contacts') IS NOT NULL AND to_regclass('whatsmeow_lid_map') IS NOT NULL;

-- name: resolve_lids
-- The pairs of these LIDs ($1) and numbers ($2), without servers.
SELECT lid, pn AS number FROM whatsmeow_lid_map WHERE lid = ANY ($1::text[]) OR pn = ANY ($2::text[]);

-- name: get_contact
-- The names of a person by all of their JIDs ($2), as in list_contacts.
SELECT
    (array_agg(full_name ORDER BY their_jid LIKE '%@lid' DESC) FILTER (WHERE full_name <> ''))[1] AS full_name,
    (array_agg(first_name ORDER BY their_jid LIKE '%@lid' DESC) FILTER (WHERE first_name <> ''))[1] AS first_name,
    (array_agg(push_name ORDER BY their_jid LIKE '%@lid' DESC) FILTER (WHERE push_name <> ''))[1] AS push_name,
    (array_agg(business_name ORDER BY their_jid LIKE '%@lid' DESC) FILTER (WHERE business_name <> ''))[1]
        AS business_name
FROM whatsmeow_contacts
WHERE our_jid = $1 AND their_jid = ANY ($2::text[])
HAVING bool_or(concat(full_name, first_name, push_name, business_name) <> '');

-- name: list_contacts
-- Contacts of a device ($1) after a JID ($2). The library can have a row for a person's number and another one for their
-- LID. Both are one contact, under the LID, whose names win: chats have moved to LIDs, so these names are newer.
-- Subqueries look each person up in the map by its indexes; a join would read the map of all sessions.
SELECT *
FROM (
    SELECT
        coalesce(lid || '@lid', number || '@s.whatsapp.net') COLLATE "C" AS jid, number, lid,
        (array_agg(full_name ORDER BY is_lid DESC) FILTER (WHERE full_name <> ''))[1] AS full_name,
        (array_agg(first_name ORDER BY is_lid DESC) FILTER (WHERE first_name <> ''))[1] AS first_name,
        (array_agg(push_name ORDER BY is_lid DESC) FILTER (WHERE push_name <> ''))[1] AS push_name,
        (array_agg(business_name ORDER BY is_lid DESC) FILTER (WHERE business_name <> ''))[1] AS business_name
    FROM (
        SELECT
            c.full_name, c.first_name, c.push_name, c.business_name,
            c.their_jid LIKE '%@lid' AS is_lid,
            CASE
                WHEN c.their_jid LIKE '%@lid' THEN split_part(c.their_jid, '@', 1)
                ELSE (SELECT m.lid FROM whatsmeow_lid_map m WHERE m.pn = split_part(c.their_jid, '@', 1))
            END AS lid,
            CASE
                WHEN c.their_jid LIKE '%@lid'
                THEN (SELECT m.pn FROM whatsmeow_lid_map m WHERE m.lid = split_part(c.their_jid, '@', 1))
                ELSE split_part(c.their_jid, '@', 1)
            END AS number
        FROM whatsmeow_contacts c
        WHERE c.our_jid = $1 AND (c.their_jid LIKE '%@lid' OR c.their_jid LIKE '%@s.whatsapp.net')
    ) known
    GROUP BY lid, number
) contact
WHERE
    jid > $2 COLLATE "C"
    AND concat(full_name, first_name, push_name, business_name) <> ''
    AND (NOT $4 OR concat(full_name, first_name) <> '')
    -- A line feed between two fields keeps a text from being found across them.
    AND position(lower($3) IN lower(concat_ws(E'\n', full_name, first_name, push_name, business_name, '+' || number)))
        > 0
ORDER BY jid
LIMIT $5;
