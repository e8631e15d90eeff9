"""The process side of a session process: its start, exit, watchdog, frames and log lines."""
