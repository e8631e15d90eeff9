-- migrate:up
-- Messages that wait for their turn are stored with their content: they are sent after a restart and on another node.
-- A row without a payload is settled, or was accepted by a node of the release before, which begins it at once.
ALTER TABLE zap.message
    ADD COLUMN payload_type text,
    ADD COLUMN payload bytea,
    -- The secret that the message carries. whatsmeow stores the message before anything leaves, so the secret finds it.
    ADD COLUMN secret bytea,
    -- The epoch in which it was passed to the library; NULL: it waits, and certainly was not sent.
    ADD COLUMN begun_epoch bigint;

CREATE INDEX message_queued ON zap.message (session_id, create_time)
WHERE state = 'ACCEPTED' AND payload IS NOT NULL AND begun_epoch IS NULL;

-- For List: the newest messages of a session.
CREATE INDEX message_of_session ON zap.message (session_id, create_time, request_id);

-- Receipts that came while a message was being sent and before its id was recorded. The owner remembers them too; these are
-- for settling the message after the owner's end.
CREATE TABLE zap.unmatched_receipt (
    session_id text NOT NULL REFERENCES zap.session ON DELETE CASCADE,
    message_id text NOT NULL,
    state text NOT NULL,
    time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (session_id, message_id)
);

-- The id of a message that whatsmeow has stored in order to send it, by its secret; NULL: nothing of it has left. The
-- plaintext holds the secret. The clock of the process that stored it may differ from this server's by ten minutes.
CREATE FUNCTION zap.sent_message_id(own_jid text, wanted bytea, since timestamptz) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF to_regclass('whatsmeow_retry_buffer') IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT b.message_id FROM whatsmeow_retry_buffer b
        WHERE
            b.our_jid = own_jid AND b.timestamp >= (extract(epoch FROM since - interval '10 min') * 1000)::bigint
            AND position(wanted IN b.plaintext) > 0
        LIMIT 1
    );
END
$$;

-- Settle the messages that processes of earlier epochs had begun to send. No process of the session may run.
-- What whatsmeow has not stored was not sent, and waits again. What it has stored may have been sent: its id is known now,
-- and a receipt settles it. Nothing can be known of a device that was deleted, nor after the days that whatsmeow keeps a
-- message for.
CREATE FUNCTION zap.settle_interrupted(of_session text, before_epoch bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    begun record;
    own_jid text := (SELECT s.device_jid FROM zap.session s WHERE s.session_id = of_session);
    found text;
    received text;
BEGIN
    FOR begun IN
        SELECT * FROM zap.message m
        WHERE
            m.session_id = of_session AND m.state = 'ACCEPTED'
            AND coalesce(m.begun_epoch, CASE WHEN m.payload IS NULL THEN m.epoch END) < before_epoch
    LOOP
        found := zap.sent_message_id(own_jid, begun.secret, begun.create_time);
        received := (
            SELECT r.state FROM zap.unmatched_receipt r WHERE r.session_id = of_session AND r.message_id = found
        );
        IF
            found IS NULL AND begun.payload IS NOT NULL AND begun.create_time > clock_timestamp() - interval '6 days'
            AND zap.device_size(own_jid) IS NOT NULL
        THEN
            UPDATE zap.message SET begun_epoch = NULL
            WHERE session_id = of_session AND request_id = begun.request_id;
        ELSE
            UPDATE zap.message SET
                state = coalesce(received, 'OUTCOME_UNKNOWN'),
                message_id = coalesce(found, ''),
                detail = CASE WHEN received IS NULL THEN 'the session''s process ended before WhatsApp answered' ELSE '' END,
                payload_type = NULL, payload = NULL, secret = NULL,
                update_time = clock_timestamp()
            WHERE session_id = of_session AND request_id = begun.request_id;
        END IF;
    END LOOP;
    DELETE FROM zap.unmatched_receipt WHERE session_id = of_session;
END
$$;

-- Begin the message that waits longest, as the owner of the session's epoch, and refuse those that have waited for too
-- long. No row: none waits, or the epoch is over.
CREATE FUNCTION zap.begin_next_message(
    of_session text, of_epoch bigint, of_incarnation uuid, longest interval
) RETURNS SETOF zap.message LANGUAGE plpgsql AS $$
BEGIN
    -- As keep_epoch.
    PERFORM FROM zap.session s WHERE s.session_id = of_session FOR KEY SHARE;
    IF NOT EXISTS (
        SELECT FROM zap.lease l
        WHERE l.session_id = of_session AND l.epoch = of_epoch AND l.incarnation = of_incarnation
            AND l.expires_at > clock_timestamp() AND NOT l.is_revoked
    ) THEN
        RETURN;
    END IF;
    UPDATE zap.message SET
        state = 'FAILED', detail = 'EXPIRED: it waited for longer than ' || longest,
        payload_type = NULL, payload = NULL, secret = NULL, update_time = clock_timestamp()
    WHERE
        session_id = of_session AND state = 'ACCEPTED' AND payload IS NOT NULL AND begun_epoch IS NULL
        AND create_time < clock_timestamp() - longest;
    RETURN QUERY
    UPDATE zap.message m SET begun_epoch = of_epoch, epoch = of_epoch
    WHERE m.session_id = of_session AND m.request_id = (
        SELECT q.request_id FROM zap.message q
        WHERE q.session_id = of_session AND q.state = 'ACCEPTED' AND q.payload IS NOT NULL AND q.begun_epoch IS NULL
        ORDER BY q.create_time, q.request_id LIMIT 1
    )
    RETURNING m.*;
END
$$;

-- As before. A receipt also proves that a message was sent whose outcome was unknown; and one of an unknown message is kept
-- while a message is being sent.
CREATE OR REPLACE FUNCTION zap.deliver_messages(of_session text, asked text[], reached text, OUT messages text[])
LANGUAGE plpgsql AS $$
BEGIN
    WITH delivered AS (
        UPDATE zap.message SET state = reached, update_time = clock_timestamp()
        WHERE
            session_id = of_session AND message_id = any(asked)
            -- The condition of the index, without which no plan for any ids can use it.
            AND message_id <> ''
            AND state = any(
                CASE
                    WHEN reached = 'READ' THEN array['OUTCOME_UNKNOWN', 'SENT', 'DELIVERED']
                    ELSE array['OUTCOME_UNKNOWN', 'SENT']
                END
            )
        RETURNING message_id
    )
    SELECT coalesce(array_agg(message_id), '{}') INTO messages FROM delivered;
    IF EXISTS (
        SELECT FROM zap.message m
        WHERE m.session_id = of_session AND m.state = 'ACCEPTED' AND m.begun_epoch IS NOT NULL
    ) THEN
        DELETE FROM zap.unmatched_receipt r
        WHERE r.session_id = of_session AND r.time < clock_timestamp() - interval '5 min';
        INSERT INTO zap.unmatched_receipt AS r (session_id, message_id, state)
        SELECT DISTINCT of_session, receipt.message_id, reached
        FROM unnest(asked) AS receipt (message_id)
        WHERE NOT EXISTS (
            SELECT FROM zap.message m
            WHERE m.session_id = of_session AND m.message_id = receipt.message_id AND m.message_id <> ''
        )
        ON CONFLICT ON CONSTRAINT unmatched_receipt_pkey DO UPDATE SET state = excluded.state
        WHERE r.state <> 'READ';
    END IF;
END
$$;

-- migrate:down
CREATE OR REPLACE FUNCTION zap.deliver_messages(of_session text, asked text[], reached text, OUT messages text[])
LANGUAGE plpgsql AS $$
BEGIN
    WITH delivered AS (
        UPDATE zap.message SET state = reached, update_time = clock_timestamp()
        WHERE
            session_id = of_session AND message_id = any(asked)
            AND message_id <> ''
            AND state = any(CASE WHEN reached = 'READ' THEN array['SENT', 'DELIVERED'] ELSE array['SENT'] END)
        RETURNING message_id
    )
    SELECT coalesce(array_agg(message_id), '{}') INTO messages FROM delivered;
END
$$;
DROP FUNCTION zap.begin_next_message;
DROP FUNCTION zap.settle_interrupted;
DROP FUNCTION zap.sent_message_id;
DROP TABLE zap.unmatched_receipt;
DROP INDEX zap.message_of_session, zap.message_queued;
ALTER TABLE zap.message DROP COLUMN payload_type, DROP COLUMN payload, DROP COLUMN secret, DROP COLUMN begun_epoch;
