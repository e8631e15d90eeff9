"""The node's side of the session processes: makes them, watches them, ends them. Never imports neonize, never forks."""
