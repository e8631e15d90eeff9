"""Converts the content of a message from WhatsApp's waE2E.Message to zap.v1.Content. Pure."""
