"""Kills the processes of sessions whose leases run out because no renewal comes through.

Their permits run out by themselves, in every session process, whatever becomes of this node. The node kills them just
before, so that it knows why they ended, and does not take their end for a fault.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from service.domain.lease import LeaseTimes
from service.ownership.lease_renewer import LeasedSession

EXPIRY_POLL_S = 0.1


class LeaseExpiryMonitor:
    """Looks at what is left of each lease, apart from the renewals: one of those that hangs must not hold it up."""

    def __init__(self, times: LeaseTimes, held: Callable[[], Sequence[LeasedSession]]) -> None:
        self._times = times
        self._held = held

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self.look()
            await asyncio.sleep(EXPIRY_POLL_S)

    def look(self) -> None:
        """Look once at all of them."""
        now = time.monotonic()
        for held in self._held():
            if held.safe_until > 0 and held.safe_until - now <= self._times.kill:
                held.lose()
