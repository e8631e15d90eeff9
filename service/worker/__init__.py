"""A session process."""
