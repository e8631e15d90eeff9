-- migrate:up
-- What a message does, and the chat in which WhatsApp put it, with which later messages refer to it. The constraint is not
-- checked on the rows that exist, which have the default: that would read the whole table under a lock.
ALTER TABLE zap.message ADD COLUMN kind text NOT NULL DEFAULT 'MESSAGE', ADD COLUMN chat text NOT NULL DEFAULT '';
ALTER TABLE zap.message
    ADD CONSTRAINT message_kind CHECK (kind IN ('MESSAGE', 'EDIT', 'REVOKE', 'PIN')) NOT VALID;

-- migrate:down
ALTER TABLE zap.message DROP COLUMN kind, DROP COLUMN chat;
