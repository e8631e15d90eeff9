"""Starts session processes and talks to them: the node's side."""
