-- migrate:up
-- Nodes, as they say of themselves with every renewal of their leases: where other nodes call them, and what they take.
CREATE TABLE zap.node (
    -- Made anew at each start of a node: two nodes of one name are two nodes.
    incarnation uuid PRIMARY KEY,
    node text NOT NULL,
    address text NOT NULL,
    most_sessions integer NOT NULL,
    -- It stops: nothing is handed over to it.
    is_draining boolean NOT NULL DEFAULT false,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);

-- migrate:down
DROP TABLE zap.node;
