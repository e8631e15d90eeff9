"""The node's side of session processes: it starts, watches and ends them, and never imports neonize."""
