"""One WhatsApp session in a session process."""
