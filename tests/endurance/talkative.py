"""A preload for session processes whose Go library says everything it can: its debug lines hold whole stanzas."""

import logging

import neonize.client

from simulator import preload


def aim() -> None:
    """Aim at the simulator, and keep the library at DEBUG whatever the client sets."""
    preload.aim()
    library = neonize.client.log
    library.setLevel(logging.DEBUG)
    library.setLevel = lambda level: None
