"""Sends what callers ask for, each message once."""
