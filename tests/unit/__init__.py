"""Tests without processes, sockets or a database."""
