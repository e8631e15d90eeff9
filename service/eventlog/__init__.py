"""Appends to the durable event log and reads it."""
