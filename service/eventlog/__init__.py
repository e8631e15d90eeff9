"""Appends to the event log, and reads it."""
