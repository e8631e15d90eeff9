"""Shared by a node and its session processes: framing, and the node's liveness socket."""
