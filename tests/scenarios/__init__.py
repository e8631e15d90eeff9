"""The engine of the trials: what runs, who writes and reads, what goes wrong, and the verdict.

`servers` starts the database, the bus and the simulated WhatsApp; `stage` has nodes on them, sessions, traffic and
callers; `background` runs what goes on meanwhile; `faults` has the form of a table of faults, and those of any node;
`verdict` counts and says what must hold; `report` has the figures and the problems. A scenario says what happens on a
stage: tests/chaos, tests/endurance. Consumers of Watch, and what must hold of them, are in tests/chaos/events.
"""
