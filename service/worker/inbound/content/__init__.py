"""What is in a message: from WhatsApp's waE2E.Message to zap.v1.Content. Pure."""
