"""The engine of the trials: what runs, who writes and reads, what goes wrong, and the verdict.

`servers` starts the database, the bus and the simulated WhatsApp; `stage` has nodes on them, sessions, traffic and
callers; `faults` are the tables of what goes wrong; `verdict` says what must hold; `report` has the figures. A scenario
describes what happens on a stage: tests/chaos, tests/endurance, tests/containers.
"""
