"""Lets go of sessions whose leases run out because no renewal comes through.

Their permits run out by themselves, in every session process, whatever becomes of this one; but a process that dies by
its permit loses what WhatsApp considers delivered and it has not handed over (neonize-facts, 7). So it is stopped
gently while there is time, and killed just before its permit would end it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from service.domain.lease import LeaseTimes

EVERY = 0.1
"""Seconds between two looks."""


class Expiring(Protocol):
    """A session that is owned here, as far as the end of its lease is concerned (sessions.runner.Runner)."""

    @property
    def safe_until(self) -> float:
        """Until when (time.monotonic()) its lease is known to last; 0 before its first epoch."""

    def expire(self) -> None:
        """Its lease is about to run out: stop its process gently."""

    def lose(self) -> None:
        """Its lease is as good as lost: kill its process."""


class Fence:
    """Looks at what is left of each lease, apart from the renewals: one of those that hangs must not hold it up."""

    def __init__(self, times: LeaseTimes, held: Callable[[], Iterator[Expiring]]) -> None:
        self._times = times
        self._held = held

    async def run(self) -> None:
        """For ever."""
        while True:
            self.look()
            await asyncio.sleep(EVERY)

    def look(self) -> None:
        """One look at all of them."""
        now = time.monotonic()
        for held in list(self._held()):
            left = held.safe_until - now
            if held.safe_until <= 0:
                continue
            if left <= self._times.kill:
                held.lose()
            elif left <= self._times.kill + self._times.gentle:
                held.expire()
