"""Looks what holds the horizon: the oldest transaction in flight, beyond which Watch shows nothing."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from service.domain.errors import Unavailable
from service.domain.maintenance import OldestTransaction
from service.ports import LogMaintenance

log = structlog.get_logger(__name__)

CHECK_INTERVAL_S = 2.0
"""Seconds between two looks."""
WARN_AFTER_S = 10.0
"""Seconds for which one transaction has to hold the horizon to be named in the log."""

Tell = Callable[[OldestTransaction | None, float], None]
"""Hears at each look who holds the horizon (None: nobody), and for how many seconds that has been seen."""


class LongTransactionMonitor:
    """Knows for how long the same transaction has been the oldest one: as long as it has been seen here.

    Not since its transaction began: it may have read for an hour, and written for a second.
    """

    def __init__(self, upkeep: LogMaintenance, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._upkeep = upkeep
        self._tell = tell
        self._clock = clock
        self._holder: OldestTransaction | None = None
        self._since = 0.0
        self._is_named = False

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                # That the database is away others say.
                with suppress(Unavailable):
                    await self.look()
            except Exception:
                # Nothing depends on it.
                log.exception("What holds Watch up could not be looked at.")
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def look(self) -> None:
        """Once. Raises Unavailable."""
        holder, now = await self._upkeep.horizon_holder(), self._clock()
        if holder is None or self._holder is None or holder.xid != self._holder.xid:
            self._let_go(now)
            self._since = now
        self._holder = holder
        seconds = now - self._since
        self._tell(holder, seconds)
        if holder is not None and seconds >= WARN_AFTER_S and not self._is_named:
            self._is_named = True
            log.warning("A transaction in flight holds Watch up: nothing newer is shown.", **_named(holder, seconds))

    def _let_go(self, now: float) -> None:
        if self._is_named and self._holder is not None:
            log.info("Watch goes on: the transaction has ended.", **_named(self._holder, now - self._since))
        self._is_named = False


def _named(holder: OldestTransaction, seconds: float) -> dict[str, object]:
    return {
        "database": holder.database,
        "application": holder.application,
        "pid": holder.pid,
        "state": holder.state,
        "seconds": round(seconds, 1),
    }
