"""Streams the event log to consumers."""
