"""Starts session processes and communicates with them, on the node's side."""
