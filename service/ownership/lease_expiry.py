"""Kills the processes of sessions whose leases expire because renewals fail.

Each process also exits by itself when its run permit ends. The node kills it just before, so that its end is no fault.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from service.domain.lease import LeaseTimes
from service.ownership.lease_renewer import LeasedSession

EXPIRY_POLL_S = 0.1
"""Seconds between two looks."""


class LeaseExpiryMonitor:
    """Watches the remaining time of each lease, in a separate task, so that a hanging renewal cannot delay it."""

    def __init__(self, times: LeaseTimes, held: Callable[[], Sequence[LeasedSession]]) -> None:
        self._times = times
        self._held = held

    async def run(self) -> None:
        """Look forever."""
        while True:
            self.look()
            await asyncio.sleep(EXPIRY_POLL_S)

    def look(self) -> None:
        """Kill the processes whose lease is about to expire."""
        now = time.monotonic()
        for held in self._held():
            if held.safe_until > 0 and held.safe_until - now <= self._times.kill:
                held.lose()
