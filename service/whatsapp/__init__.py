"""The session process's side: the only importer of neonize, one WhatsApp client and then an end."""
