"""What session processes of tests call before their first connect."""

import time


def take_long() -> None:
    """As a library that takes its time to load, or a database that does not answer."""
    time.sleep(600)
