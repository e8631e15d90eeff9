-- migrate:up
-- How many sessions there are in each state for each reason, counted by one node for all: [[state, reason, sessions, wanted]].
-- Nodes of the release before write `wanted` and `counted_at` while they are replaced, and nothing reads them afterwards.
ALTER TABLE zap.census ADD COLUMN counts jsonb NOT NULL DEFAULT '[]', ADD COLUMN counts_at timestamptz;

-- migrate:down
ALTER TABLE zap.census DROP COLUMN counts, DROP COLUMN counts_at;
