-- migrate:up
-- Inbound events are appended under the fence, in one round trip. What tells repetitions apart is the origin alone.
--
-- The statements of a volatile function in plpgsql each have a snapshot of their own. So the function can wait for a
-- lock and then read what was committed meanwhile, as a transaction of several round trips does.

-- Frame numbers have no meaning any more. Nodes of the release before still write them beside this one, and their
-- uniqueness with them: a later release drops the column, and the index event_frame.
ALTER TABLE zap.event ALTER COLUMN frame SET DEFAULT 0;

-- Append those events that are new, in their order: one row with the places (from 1) of the new ones among those that
-- were given, their ids and their sequences, and the horizon. An event of an origin that the session's log has is not new;
-- one without an origin always is. The caller holds the session's log lock.
CREATE FUNCTION zap.append_events(
    of_session text, of_epoch bigint, times timestamptz[], types text[], payloads bytea[], origins bytea[],
    OUT places integer[], OUT ids bigint[], OUT sequences bigint[], OUT horizon bigint
) LANGUAGE plpgsql AS $$
DECLARE
    given record;
    last bigint := coalesce((SELECT s.last_sequence FROM zap.event_sequence s WHERE s.session_id = of_session), 0);
BEGIN
    places := '{}'; ids := '{}'; sequences := '{}';
    FOR given IN
        SELECT * FROM unnest(times, types, payloads, origins) WITH ORDINALITY AS g (time, type, payload, origin, place)
    LOOP
        CONTINUE WHEN given.origin IS NOT NULL AND EXISTS (
            SELECT FROM zap.event e WHERE e.session_id = of_session AND e.origin = given.origin
        );
        last := last + 1;
        INSERT INTO zap.event (session_id, epoch, sequence, time, type, payload, origin)
        VALUES (of_session, of_epoch, last, given.time, given.type, given.payload, given.origin)
        RETURNING ids || id INTO ids;
        places := places || given.place::integer;
        sequences := sequences || last;
    END LOOP;
    IF ids <> '{}' THEN
        INSERT INTO zap.event_sequence AS s (session_id, last_sequence) VALUES (of_session, last)
        ON CONFLICT (session_id) DO UPDATE SET last_sequence = excluded.last_sequence;
    END IF;
    horizon := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
END
$$;

-- How far messages came that the session sent, by their ids; never backwards, and only of what was sent: nothing else has
-- a message_id. The ids of those that are further now.
CREATE FUNCTION zap.deliver_messages(of_session text, asked text[], reached text, OUT messages text[])
LANGUAGE plpgsql AS $$
BEGIN
    WITH delivered AS (
        UPDATE zap.message SET state = reached, update_time = clock_timestamp()
        WHERE
            session_id = of_session AND message_id = any(asked)
            -- The condition of the index, without which no plan for any ids can use it.
            AND message_id <> ''
            AND state = any(CASE WHEN reached = 'READ' THEN array['SENT', 'DELIVERED'] ELSE array['SENT'] END)
        RETURNING message_id
    )
    SELECT coalesce(array_agg(message_id), '{}') INTO messages FROM delivered;
END
$$;

-- Append what came in from WhatsApp, as the owner of the session's epoch, and apply its receipts. No row: the epoch is over.
-- A row of NULLs: the session was deleted (another one may have its id since). Nothing was written then. An epoch that is
-- revoked may still write: its process is asked to stop, and ends with the event that it has in hand.
CREATE FUNCTION zap.append_inbound(
    of_session text, of_epoch bigint, of_incarnation uuid,
    times timestamptz[], types text[], payloads bytea[], origins bytea[], delivered text[], read text[]
)
RETURNS TABLE (places integer[], ids bigint[], sequences bigint[], horizon bigint, messages text[]) LANGUAGE plpgsql AS $$
DECLARE
    former bigint;
BEGIN
    -- As in lock_session_log: the transaction has no number yet while it waits here.
    PERFORM pg_advisory_xact_lock(hashtextextended('zap.event:' || of_session, 0));
    -- As in keep_epoch: until this transaction ends, no epoch of the session does.
    SELECT s.former_epoch INTO former FROM zap.session s WHERE s.session_id = of_session FOR KEY SHARE;
    IF NOT EXISTS (
        SELECT FROM zap.lease l
        WHERE l.session_id = of_session AND l.epoch = of_epoch AND l.incarnation = of_incarnation
    ) THEN
        RETURN;
    END IF;
    IF coalesce(former >= of_epoch, true) THEN
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT * INTO places, ids, sequences, horizon
    FROM zap.append_events(of_session, of_epoch, times, types, payloads, origins);
    messages := '{}';
    IF delivered <> '{}' THEN
        messages := zap.deliver_messages(of_session, delivered, 'DELIVERED');
    END IF;
    IF read <> '{}' THEN
        messages := messages || zap.deliver_messages(of_session, read, 'READ');
    END IF;
    IF ids <> '{}' THEN
        -- What came in is evidence for the session. A time to come would be the last one for good.
        UPDATE zap.session s SET last_inbound_at = latest.time
        FROM (SELECT least(max(times[place]), clock_timestamp()) AS time FROM unnest(places) AS place) latest
        WHERE s.session_id = of_session AND latest.time > coalesce(s.last_inbound_at, '-infinity');
    END IF;
    RETURN NEXT;
END
$$;

-- migrate:down
DROP FUNCTION zap.append_inbound;
DROP FUNCTION zap.deliver_messages;
DROP FUNCTION zap.append_events;
ALTER TABLE zap.event ALTER COLUMN frame DROP DEFAULT;
