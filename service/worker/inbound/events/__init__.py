"""What happens in WhatsApp besides messages and receipts, from the library's events to frames."""
