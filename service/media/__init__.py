"""Media: storing files at WhatsApp and reading them."""
