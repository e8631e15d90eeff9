"""Sends messages for callers, each message once."""
