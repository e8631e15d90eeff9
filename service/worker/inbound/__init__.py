"""Turns the library's events into inbound events for the log."""
