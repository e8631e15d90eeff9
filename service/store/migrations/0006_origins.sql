-- migrate:up
-- WhatsApp sends again what was not acknowledged, perhaps to another process, under another number: what an event came
-- from tells it apart. Its first four bytes are the hour of its message, so that what comes in meets the same few pages
-- of the index and not all of them (docs/measurements.md). NULL: nothing that could be sent again.
ALTER TABLE zap.event ADD COLUMN origin bytea CHECK (octet_length(origin) = 16);

CREATE UNIQUE INDEX event_origin ON zap.event (session_id, origin) WHERE origin IS NOT NULL;

-- migrate:down
DROP INDEX zap.event_origin;
ALTER TABLE zap.event DROP COLUMN origin;
