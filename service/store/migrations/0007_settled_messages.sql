-- migrate:up
-- Messages that callers sent are deleted long after they were settled: found by their age, without a look at the others.
CREATE INDEX message_settled ON zap.message (create_time) WHERE state <> 'ACCEPTED';

-- migrate:down
DROP INDEX zap.message_settled;
