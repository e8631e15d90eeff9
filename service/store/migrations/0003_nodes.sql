-- migrate:up
-- Where nodes are called by other nodes. A node says so with every renewal of its leases.
CREATE TABLE zap.node (
    -- Made anew at each start of a node: two nodes of one name are two nodes.
    incarnation uuid PRIMARY KEY,
    node text NOT NULL,
    address text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);

-- migrate:down
DROP TABLE zap.node;
