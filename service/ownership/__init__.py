"""Decides which node owns which session: renews leases, claims sessions and hands them over."""
