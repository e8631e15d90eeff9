"""Starts, wires and stops a node."""
