"""Builds, starts and stops a node, and reads its settings."""
