"""Use-cases: what callers ask of sessions, and what the owner of one does with its process."""
