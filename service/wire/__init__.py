"""What a node and its session processes share: framing, and the node's liveness socket."""
