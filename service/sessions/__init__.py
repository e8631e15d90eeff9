"""Serves what callers ask of sessions, and runs the sessions that this node owns."""
