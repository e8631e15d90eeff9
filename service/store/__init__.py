"""Postgres: the truth about sessions, leases, events and messages."""
