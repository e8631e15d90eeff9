-- migrate:up
-- Wishes can change twice before the owner looks: Deactivate and Activate, or Delete and Create. The process of before
-- would go on for what is wanted now, with the codes, or even the account, of what is not. So whoever withdraws a wish
-- revokes the epoch, and the owner starts another one.
ALTER TABLE zap.lease ADD COLUMN is_revoked boolean NOT NULL DEFAULT false;

-- migrate:down
ALTER TABLE zap.lease DROP COLUMN is_revoked;
