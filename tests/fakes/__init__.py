"""Stand-ins with behaviour: what a test says about them is true of the real thing."""
