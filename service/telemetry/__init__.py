"""Logs, metrics and probes. They wrap; the core does not know of them."""
