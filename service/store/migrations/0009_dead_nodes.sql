-- migrate:up
-- Nodes of one machine can prove each other's death (docs/ownership.md). Both columns are written with every renewal.
ALTER TABLE zap.node
    -- Boot id and network namespace, where the name of the node's liveness socket can be seen. NULL: not known.
    ADD COLUMN liveness_scope text,
    -- The backend that carries out its renewals.
    ADD COLUMN backend_pid integer;

-- migrate:down
ALTER TABLE zap.node DROP COLUMN liveness_scope, DROP COLUMN backend_pid;
