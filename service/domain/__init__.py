"""What is true of sessions whatever they run on: states, policies, leases, pairing. Standard library only, no await."""
