-- migrate:up
-- Devices that could not read a message, asked for it again, and have not confirmed it since.
CREATE TABLE zap.retry_request (
    session_id text NOT NULL,
    request_id text NOT NULL,
    message_id text NOT NULL,
    device text NOT NULL,
    asked_at timestamptz NOT NULL,
    -- The device could not be sent the message again, once at least.
    has_failed boolean NOT NULL,
    PRIMARY KEY (session_id, request_id, device),
    FOREIGN KEY (session_id, request_id) REFERENCES zap.message ON DELETE CASCADE
);

-- Note which devices ask again for messages that the session sent, and forget those that confirm them. Parallel arrays: a
-- message, what is said of it (a kind of receipt, or RESEND_FAILED), by which device, when. What is asked for before its
-- message_id is written down leaves no trace: a device that cannot read the answer either asks once more.
CREATE FUNCTION zap.note_retry_requests(
    of_session text, asked text[], kinds text[], devices text[], asked_at timestamptz[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF kinds && '{RETRY,RESEND_FAILED}' THEN
        INSERT INTO zap.retry_request AS r (session_id, request_id, message_id, device, asked_at, has_failed)
        SELECT
            m.session_id, m.request_id, m.message_id, told.device,
            least(min(told.at), clock_timestamp()), bool_or(told.kind = 'RESEND_FAILED')
        FROM zap.message m
        JOIN unnest(asked, kinds, devices, asked_at) AS told (message_id, kind, device, at) USING (message_id)
        JOIN zap.session s USING (session_id)
        WHERE
            -- The condition of the index, as in deliver_messages.
            m.session_id = of_session AND m.message_id = any(asked) AND m.message_id <> ''
            AND told.kind IN ('RETRY', 'RESEND_FAILED')
            -- Not the account's own devices: they confirm nothing to this one.
            AND split_part(split_part(told.device, '@', 1), ':', 1) NOT IN (
                split_part(split_part(s.account_jid, '@', 1), ':', 1),
                split_part(split_part(s.account_lid, '@', 1), ':', 1)
            )
        GROUP BY m.session_id, m.request_id, told.device
        ON CONFLICT ON CONSTRAINT retry_request_pkey DO UPDATE SET has_failed = true
        WHERE excluded.has_failed AND NOT r.has_failed;
    END IF;
    -- Most sessions have none.
    IF EXISTS (SELECT FROM zap.retry_request r WHERE r.session_id = of_session) THEN
        -- An array instead of a join, which a planner may begin with all requests of the session.
        DELETE FROM zap.retry_request r
        USING unnest(asked, kinds, devices) AS told (message_id, kind, device)
        WHERE
            r.session_id = of_session AND r.request_id = ANY (ARRAY(
                SELECT m.request_id FROM zap.message m
                WHERE m.session_id = of_session AND m.message_id = any(asked) AND m.message_id <> ''
            ))
            AND told.kind NOT IN ('RETRY', 'RESEND_FAILED')
            AND r.message_id = told.message_id AND r.device = told.device;
    END IF;
END
$$;

-- migrate:down
DROP FUNCTION zap.note_retry_requests;
DROP TABLE zap.retry_request;
