"""Builds the library's messages from what callers send. Pure but for the clock."""
