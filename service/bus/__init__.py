"""Publishes live events and hints on Redis. Losing Redis slows the service but causes no errors."""
