-- Every statement that the service sends to Postgres. `-- name:` starts one; service/store/queries.py reads this file.

-- name: ping
SELECT 1;

-- name: lock_session_log
-- Order for one session's events. A statement of its own, and the first of its transaction: it must not have a number yet
-- while it waits, or a later sequence could be visible before an earlier one.
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
-- Ids first: the view tells the time for each row, so Postgres computes all of its rows before it sorts and limits them.
-- OFFSET 0: it would also do so before it joins them.
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
-- The row that decides what happens next, and the database's time to decide by.
SELECT
    desired_state, state, reason, credentials, attempts, next_attempt_at, replaced_at, identity_key, device_jid,
    version, proxy_url, clock_timestamp() AS now
FROM zap.session
WHERE session_id = $1
FOR UPDATE;

-- name: fence
-- Holds only under the session's row lock, which begin_epoch takes too.
SELECT is_revoked FROM zap.lease WHERE session_id = $1 AND epoch = $2 AND incarnation = $3;

-- name: current_epoch
SELECT epoch FROM zap.lease WHERE session_id = $1;

-- name: write_condition
-- $9 says whether the caller's wishes changed: only then the etag does.
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
-- What is not known (an empty string) leaves what was.
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
-- The session lets go of its device: the device's row is deleted once no process of the session can write it again.
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
-- Devices that no session names: the few whose pairing was interrupted, and any that somebody else put there.
SELECT jid, identity_key FROM whatsmeow_device d
WHERE NOT EXISTS (SELECT FROM zap.session s WHERE s.device_jid = d.jid);

-- name: delete_device
-- Its keys go with it (whatsmeow's foreign keys cascade).
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
-- A code is on show while the process that shows it may live: its epoch is the current one, under a live lease.
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
-- Under the session's log lock. See migrations/0008_inbound.sql, which has the functions.
SELECT * FROM zap.append_events($1, $2, $3, $4, $5, $6);

-- name: append_inbound
-- The whole transaction: the lock, the fence, the events, and what receipts among them say of messages.
-- $10 to $13: what devices say of them, see migrations/0010_retry_requests.sql. Nothing is noted where nothing is appended.
SELECT
    appended.*,
    CASE
        WHEN places IS NOT NULL AND cardinality($10::text[]) > 0
        THEN zap.note_retry_requests($1, $10, $11, $12, $13)
    END
FROM zap.append_inbound($1, $2, $3, $4, $5, $6, $7, $8, $9) AS appended;

-- name: due_at
-- What is due at these places of the queue: of pairings, or of all others.
SELECT session_id FROM zap.session_due WHERE turn = any($1::bigint[]) AND is_pairing = $2;

-- name: claim_leases
-- Sessions that are wanted, due and nobody's: pairings, or all others. First those whose places were this node's ($6;
-- service/domain/placement.py), then those that were left to others for too long ($7 seconds). Two nodes that ask at once
-- have different places; if they meet all the same they lock the rows in one order, and the second finds the WHERE no
-- longer true.
WITH due AS (
    SELECT session_id, row_number() OVER (ORDER BY is_mine DESC, turn) AS place
    FROM (SELECT *, session_id = any($6::text[]) AS is_mine FROM zap.session_due WHERE is_pairing = $5) d
    WHERE is_mine OR due_since <= clock_timestamp() - make_interval(secs => $7)
    ORDER BY place
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
SELECT session_id FROM claimed JOIN due USING (session_id) ORDER BY place;

-- name: claim_leftovers
-- Ids with discarded identities that nobody owns: whoever claims them deletes the devices, if need be of a session
-- that has itself been deleted.
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
-- Under the session's row lock: a writer of the epoch before has committed, or will find itself fenced. Only nodes of an
-- earlier release write and read turn_at (when the owner expects to start the session): it is cleared for them.
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
-- Backends of processes of this session ($1) before this epoch. Those that execute something, or are in the middle of a
-- transaction, belong to who their name says. An idle one behind a pooler keeps the name of who used it last, and may be
-- another session's the next moment; without a pooler ($3) nobody else can ever use it, but what a network has kept may
-- still reach it. Backends of another role are none of our business, nor do we see their state.
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE
    datname = current_database() AND usename = current_user
    AND starts_with(application_name, $1)
    AND substring(application_name FROM '/([0-9]{1,18})$')::bigint < $2
    AND (state IN ('active', 'idle in transaction') OR $3 AND state = 'idle');

-- name: revoke_epoch
-- The process that runs now, if one does, must not go on for what is wanted next. Under the session's row lock.
UPDATE zap.lease SET is_revoked = true WHERE session_id = $1;

-- name: revoke_unless_code_is_shown
-- For a new proxy: a code that somebody is about to scan stays good.
UPDATE zap.lease SET is_revoked = true
WHERE session_id = $1 AND NOT EXISTS (SELECT FROM zap.pairing WHERE session_id = $1 AND code_text IS NOT NULL);

-- name: renew_leases
-- One statement for all sessions of a node, which says as well where it is called and what it takes. An expired lease
-- is not renewed, even if nobody took it. It waits for nobody: a row that somebody holds (a node that was frozen in the
-- middle of a transaction) is passed over, and returned as not renewed, or one session would cost the node all others.
-- Such a row is seen as it was when the statement began. It may be another's by now, which the next renewal says.
-- heard_until: see migrations/0011_by_index.sql. By the statement's time, which is before that of any lease.
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
-- It can be late: kept by a lock or the network when its node no longer waits for it, and has claimed the session anew.
-- What was only claimed has no process, and whoever is about to begin it finds that it has lost it.
UPDATE zap.lease SET incarnation = NULL, expires_at = NULL, node = ''
WHERE session_id = $1 AND incarnation = $2 AND (epoch = $3 OR NOT is_begun)
RETURNING session_id;

-- name: release_orphaned_lease
-- That of an epoch which nobody here works for. If somebody has begun another one meanwhile, it is his.
UPDATE zap.lease SET incarnation = NULL, expires_at = NULL, node = ''
WHERE session_id = $1 AND incarnation = $2 AND epoch = $3;

-- name: release_all_leases
-- Those on which nothing was begun. What was is given up by whoever began it, once its process is dead for certain.
UPDATE zap.lease SET incarnation = NULL, expires_at = NULL, node = '' WHERE incarnation = $1 AND NOT is_begun;

-- name: owner_of
SELECT n.incarnation, n.node, n.address, l.epoch
FROM zap.lease l JOIN zap.node n USING (incarnation)
WHERE l.session_id = $1 AND l.expires_at > clock_timestamp();

-- name: candidates
-- Nodes that go on, other than $1 (NULL: all of them), with what they own. Not one that will not be heard of any more:
-- half a second before its row ends a node is killing what it has. Otherwise a dead one, whose leases end a moment
-- before its row, would be the one with the fewest sessions just when those are claimed.
SELECT n.incarnation, n.node, n.address, n.most_sessions, count(l.session_id)::int AS sessions
FROM zap.node n
LEFT JOIN zap.lease l ON l.incarnation = n.incarnation AND l.expires_at > clock_timestamp()
WHERE n.incarnation IS DISTINCT FROM $1 AND NOT n.is_draining AND n.expires_at > clock_timestamp() + interval '0.5 s'
GROUP BY n.incarnation;

-- name: node_secret_salt
SELECT salt FROM zap.node_secret;

-- name: lock_node_secret
-- A node that started so recently may not have announced itself yet.
SELECT fingerprint, used_at > clock_timestamp() - interval '10 s' AS is_fresh FROM zap.node_secret FOR UPDATE;

-- name: living_nodes
SELECT node FROM zap.node WHERE expires_at > clock_timestamp() ORDER BY node;

-- name: use_node_secret
UPDATE zap.node_secret SET fingerprint = $1, used_at = clock_timestamp();

-- name: node_is_draining
SELECT EXISTS (SELECT FROM zap.node WHERE is_draining AND expires_at > clock_timestamp());

-- name: idlest_sessions
-- Connected under the epoch that its lease has now. Idle since what came in or went out last, as in zap.session_due.
SELECT s.session_id FROM zap.lease l JOIN zap.session s USING (session_id)
WHERE
    l.incarnation = $1 AND l.expires_at > clock_timestamp() AND l.is_begun AND NOT l.is_revoked
    AND s.desired_state = 'ACTIVE' AND s.state = 'CONNECTED' AND coalesce(s.connected_epoch, l.epoch) = l.epoch
ORDER BY greatest(s.last_inbound_at, s.last_acknowledged_send_at, s.paired_at) NULLS FIRST, s.session_id
LIMIT $2;

-- name: nodes_are_awaited
-- Some node was heard of $1 seconds ago or later, has not stopped, and is not heard of (as in `candidates`).
SELECT EXISTS (
    SELECT FROM zap.node
    WHERE NOT is_draining AND expires_at <= clock_timestamp() + interval '0.5 s'
        AND expires_at > clock_timestamp() - make_interval(secs => $1)
);

-- name: hand_over_lease
-- From its owner, whose process is dead, to the one that is named ($3, $4): there is no moment in which it is nobody's.
UPDATE zap.lease SET
    incarnation = $3,
    node = $4,
    is_begun = false,
    renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => $5)
WHERE session_id = $1 AND incarnation = $2 AND expires_at > clock_timestamp()
    -- It may have been told to stop meanwhile, or be dead and another one at its address.
    AND EXISTS (
        SELECT FROM zap.node
        WHERE node.incarnation = $3 AND NOT is_draining AND node.expires_at > clock_timestamp()
    )
RETURNING session_id;

-- name: neighbours
-- The other nodes of one machine, as far as they own something or count as living.
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
-- Its leases end, and it is no candidate any more. NULL, and nothing is done, while the backend of its last renewal is
-- there: that ends with the node. So a node that renews its leases cannot be taken for dead, even if its machine is the
-- copy of another one and both have the same boot id. Rows that somebody holds are left for the next call.
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
-- It has stopped; and those that were killed a day ago or longer.
DELETE FROM zap.node WHERE incarnation = $1 OR expires_at < clock_timestamp() - interval '1 day';

-- name: unwanted_leases
SELECT l.session_id FROM zap.lease l
LEFT JOIN zap.session s ON s.session_id = l.session_id
WHERE l.incarnation = $1 AND (l.is_revoked OR s.desired_state IS DISTINCT FROM 'ACTIVE');

-- name: survey_sessions
-- All that the reconciler wants to know, with one look at each session that is not connected, as far as that can be seen
-- without a look at it. A temporary ban that goes on is nothing to be mended. The last column: seconds until the next
-- session becomes due by itself, because its lease expires or its next attempt comes, or has been left to its node for
-- long enough ($2); of a lease that is not heard of, since the others are renewed before. The time is materialized: a
-- planner who expects few sessions would have it told anew for each of them.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now),
looked_at AS (
    SELECT session_id FROM zap.lease_unheard
    UNION
    -- Those that wait in their owner.
    SELECT session_id FROM zap.session
    WHERE desired_state = 'ACTIVE' AND state <> 'FAILED' AND next_attempt_at <= (SELECT now FROM clock)
)
SELECT
    count(*) FILTER (WHERE paired AND NOT live AND ready) AS due,
    count(*) FILTER (WHERE paired AND NOT live AND ready AND anybodys_at <= now) AS late,
    count(*) FILTER (WHERE paired AND live AND NOT heard) AS silent,
    count(*) FILTER (WHERE paired AND heard AND next_attempt_at <= now) AS waiting,
    count(*) FILTER (WHERE state = 'PAIRING' AND NOT live AND ready) AS pairings,
    count(*) FILTER (WHERE state = 'PAIRING' AND NOT live AND ready AND anybodys_at <= now) AS late_pairings,
    extract(epoch FROM least(
        min(greatest(CASE WHEN live THEN expires_at END, next_attempt_at))
            FILTER (WHERE incarnation IS DISTINCT FROM $1 AND (live OR NOT ready)),
        min(anybodys_at) FILTER (WHERE NOT live AND ready AND anybodys_at > now)
    ) - min(now))::float8 AS next_due
FROM (
    SELECT
        n.now, s.state, s.next_attempt_at, l.incarnation, l.expires_at,
        s.state <> 'PAIRING' AND (s.state <> 'SUSPENDED' OR s.next_attempt_at <= n.now) AS paired,
        s.next_attempt_at IS NULL OR s.next_attempt_at <= n.now AS ready,
        coalesce(l.expires_at > n.now, false) AS live,
        coalesce(l.renewed_at + (l.expires_at - l.renewed_at) / 2 > n.now, false) AS heard,
        -- As in zap.session_due.
        greatest(s.update_time, s.next_attempt_at, l.expires_at) + make_interval(secs => $2) AS anybodys_at
    FROM clock n
    CROSS JOIN looked_at
    -- OFFSET 0, as in zap.session_due.
    CROSS JOIN LATERAL (SELECT * FROM zap.session WHERE session_id = looked_at.session_id OFFSET 0) s
    CROSS JOIN LATERAL (SELECT * FROM zap.lease WHERE session_id = looked_at.session_id OFFSET 0) l
    WHERE s.desired_state = 'ACTIVE' AND s.state <> 'FAILED'
) unsettled;

-- name: known_wanted
-- Counted in the last $1 seconds.
SELECT wanted FROM zap.census WHERE counted_at > clock_timestamp() - make_interval(secs => $1);

-- name: count_wanted
-- It only reads: with a number of its own, this transaction would hold Watch for as long as it counts.
SELECT count(*) FROM zap.session
WHERE
    desired_state = 'ACTIVE' AND state NOT IN ('FAILED', 'PAIRING')
    AND (state <> 'SUSPENDED' OR next_attempt_at <= clock_timestamp());

-- name: keep_wanted
UPDATE zap.census SET wanted = $1, counted_at = clock_timestamp();

-- name: leftovers_exist
SELECT EXISTS (
    SELECT FROM zap.discarded_identity d
    LEFT JOIN zap.lease held ON held.session_id = d.session_id
    WHERE held.incarnation IS NULL OR held.expires_at <= clock_timestamp()
);

-- name: keep_epoch
-- Until this transaction ends, no epoch of the session does: begin_epoch, a wish and a deletion lock this row. Whether one
-- has ended is for another statement to see, behind this one: it must know what was committed while this one waited.
SELECT FROM zap.session WHERE session_id = $1 FOR KEY SHARE;

-- name: accept_message
-- Fenced by itself, behind keep_epoch: a new message is accepted only by the session's owner, and while there is a
-- session. It locks no lease: a renewal passes over what is locked, and some sessions send all the time.
INSERT INTO zap.message (session_id, request_id, recipient, fingerprint, epoch)
SELECT $1, $2, $3, $4, l.epoch FROM zap.lease l JOIN zap.session s USING (session_id)
WHERE l.session_id = $1 AND l.epoch = $5 AND l.incarnation = $6 AND l.expires_at > clock_timestamp()
    AND NOT l.is_revoked
ON CONFLICT DO NOTHING
RETURNING *;

-- name: get_message
SELECT m.*, unreadable_since, is_resend_failed
FROM zap.message m
CROSS JOIN LATERAL (
    SELECT min(asked_at) AS unreadable_since, bool_or(has_failed) AS is_resend_failed
    FROM zap.retry_request r WHERE r.session_id = m.session_id AND r.request_id = m.request_id
) asked
WHERE m.session_id = $1 AND m.request_id = $2;

-- name: settle_message
-- Once: what is settled stays. That WhatsApp acknowledged it is evidence for the session.
WITH settled AS (
    UPDATE zap.message SET
        state = $3, message_id = $4, detail = $5, sent_time = $6, update_time = clock_timestamp()
    WHERE session_id = $1 AND request_id = $2 AND state = 'ACCEPTED'
    RETURNING *
),
noted AS (
    UPDATE zap.session SET last_acknowledged_send_at = clock_timestamp()
    WHERE session_id = $1 AND EXISTS (SELECT FROM settled WHERE state = 'SENT')
)
SELECT * FROM settled;

-- name: deliver_messages
SELECT zap.deliver_messages($1, $2, $3);

-- name: abandon_messages
-- Messages that an earlier process was sending: nobody can know any more what became of them.
UPDATE zap.message SET
    state = 'OUTCOME_UNKNOWN',
    detail = 'the session''s process ended before WhatsApp answered',
    update_time = clock_timestamp()
WHERE session_id = $1 AND state = 'ACCEPTED' AND epoch < $2;

-- name: token_key
SELECT token_key FROM zap.event_log;

-- name: is_log_restored
-- It names transactions that have not begun on this server.
SELECT
    EXISTS (SELECT FROM zap.event WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))
    OR EXISTS (SELECT FROM zap.event_log WHERE deleted_xid >= pg_snapshot_xmax(pg_current_snapshot()));

-- name: settle_restored_events
-- 1 and 2 are no transaction's numbers.
UPDATE zap.event SET xid = '1' WHERE xid <> '1';

-- name: settle_restored_log
UPDATE zap.event_log SET
    token_key = sha256((gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text)::bytea),
    deleted_xid = '0',
    deleted_id = 0;

-- name: log_bounds
-- Whether the place ($1, $2) can be one of this database's: its transaction has a number that was given out, and if it is
-- an event's, the event is there, or is the last one that was deleted: who has read it misses nothing. (Places before
-- that one are expired.)
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
-- Of these ids, those of which there is neither a session nor was there ever an event.
SELECT asked.session_id FROM unnest($1::text[]) WITH ORDINALITY AS asked (session_id, place)
WHERE NOT EXISTS (SELECT FROM zap.session s WHERE s.session_id = asked.session_id)
    AND NOT EXISTS (SELECT FROM zap.event_sequence s WHERE s.session_id = asked.session_id)
ORDER BY asked.place LIMIT 1;

-- name: read_log
-- The next $3 events after the place ($1, $2) and below the horizon, of all sessions or of the few in $8; of these the ones
-- that pass the filter ($5 types, $6 user, $7 labels, $9 sessions; NULL: all), and of those as many as fit into $4 bytes of
-- payload, one at least. One statement, and so one snapshot: an event is seen, or lies above the horizon. There is a row even if
-- there is no event.
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
    -- By the end of the index, and once: an EXISTS would be asked for each row, of the whole table.
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
-- One at a time, in the whole database, until the transaction ends. False: somebody else is at it.
SELECT pg_try_advisory_xact_lock(hashtextextended('zap.upkeep', 0));

-- name: trim_events
-- Of the $2 oldest events, in the order of places, those before the first one that was appended less than $1 ago. The place
-- up to which events are deleted moves in the same transaction. Above the horizon nobody has been given them yet. It begins
-- behind what was deleted before: the index keeps that until it is vacuumed. An array instead of a join, which a planner
-- would have read the whole log for.
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
doomed AS MATERIALIZED (
    SELECT xid, id FROM (
        SELECT *, bool_or(is_young) OVER (ORDER BY xid, id) AS is_kept FROM oldest
    ) judged
    WHERE NOT is_kept
),
moved AS (
    UPDATE zap.event_log SET deleted_xid = last.xid, deleted_id = last.id
    FROM (SELECT xid, id FROM doomed ORDER BY xid DESC, id DESC LIMIT 1) last
),
deleted AS (
    DELETE FROM zap.event WHERE id = ANY (ARRAY(SELECT id FROM doomed)) RETURNING true
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
-- Of what whatsmeow remembers of decrypted messages (times in milliseconds): rows whose plaintext is cleared, since their
-- event is in our log. One that is not cleared was not acknowledged: WhatsApp may send its message again for 14 days, and
-- without the row nobody could read it.
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
-- Of what whatsmeow keeps of sent messages, for those whose device asks for one again (times in milliseconds). By device,
-- because whatsmeow's own index is: (our_jid, timestamp).
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

-- name: count_sessions
-- As Status shows them, but for WAITING_FOR_TURN, which is not stored.
SELECT state, reason, count(*) AS sessions FROM zap.session_now GROUP BY state, reason;

-- name: horizon_holder
-- The transaction whose number is the horizon, if it is in flight: it is if a later one has ended (is_certain), or if somebody
-- has it; otherwise nobody may have had that number yet. What pg_stat_activity has of another role's backends without
-- pg_read_all_stats is NULL or little. Its numbers have 32 bits.
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
