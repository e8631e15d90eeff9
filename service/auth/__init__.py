"""Authentication of callers and of nodes."""
