-- migrate:up
-- Which ZAP_NODE_SECRET the nodes have, told by a fingerprint (scrypt): one row. The secret cannot be had from it.
CREATE TABLE zap.node_secret (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    salt bytea NOT NULL DEFAULT sha256((gen_random_uuid()::text || gen_random_uuid()::text)::bytea),
    -- NULL: no node has started yet.
    fingerprint bytea,
    -- When a node started with it last.
    used_at timestamptz
);
INSERT INTO zap.node_secret DEFAULT VALUES;

-- migrate:down
DROP TABLE zap.node_secret;
