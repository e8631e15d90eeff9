"""The session processes' side: the only importer of neonize."""
