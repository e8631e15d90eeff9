"""Turns what the library reports into events for the log."""
