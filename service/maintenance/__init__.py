"""Keeps the database small, and watches what holds it up."""
