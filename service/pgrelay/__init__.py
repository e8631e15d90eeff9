"""Proxies the library's connections to Postgres through a thread of the same process, and hides every loss."""
