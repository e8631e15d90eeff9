"""The session process: one WhatsApp client of the library, isolated in a process."""
