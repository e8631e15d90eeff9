"""Tests with the real neonize against the simulator."""
