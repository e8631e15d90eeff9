"""Stores sessions, leases, events and messages in Postgres."""
