"""Who owns which session: leases, what they permit, and what is claimed next."""
