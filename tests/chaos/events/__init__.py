"""The trial of the event log: everything is killed at random while phones write, and consumers lose nothing."""
