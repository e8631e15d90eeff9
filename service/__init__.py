"""WhatsApp sessions as a service."""
