"""Declare what the core needs from the world, and state each port's guarantees."""
