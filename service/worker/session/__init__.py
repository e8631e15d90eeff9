"""Runs one WhatsApp session in a session process."""
