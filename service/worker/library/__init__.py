"""Loads the WhatsApp library and turns its switches on."""
