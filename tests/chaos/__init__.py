"""Outages on purpose: what goes wrong in the world around the service, again and again, and what becomes of it."""
