"""Monitors what holds the horizon: the oldest transaction in flight, beyond which Watch shows nothing."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from service.domain.errors import Unavailable
from service.domain.maintenance import OldestTransaction
from service.ports.eventlog import LogMaintenance

log = structlog.get_logger(__name__)

CHECK_INTERVAL_S = 2.0
"""Seconds between two checks."""
WARN_AFTER_S = 10.0
"""A transaction that has held the horizon for this many seconds is named in the log."""

Report = Callable[[OldestTransaction | None, float], None]
"""Receives at each check the transaction that holds the horizon, or None, and for how many seconds it was seen."""


class LongTransactionMonitor:
    """Measures for how long the same transaction has been seen as the oldest one.

    The transaction's start does not count: it may have read for an hour and written for a second.
    """

    def __init__(self, upkeep: LogMaintenance, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._upkeep = upkeep
        self._report = report
        self._clock = clock
        self._holder: OldestTransaction | None = None
        self._since = 0.0
        self._is_logged = False

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            try:
                # Other parts log an unavailable database.
                with suppress(Unavailable):
                    await self.look()
            except Exception:
                # No other part depends on this check, so the loop continues.
                log.exception("Checking for long transactions failed; retrying.")
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def look(self) -> None:
        """Check once. Raises Unavailable."""
        holder, now = await self._upkeep.horizon_holder(), self._clock()
        if holder is None or self._holder is None or holder.xid != self._holder.xid:
            self._log_end(now)
            self._since = now
        self._holder = holder
        seconds = now - self._since
        self._report(holder, seconds)
        if holder is not None and seconds >= WARN_AFTER_S and not self._is_logged:
            self._is_logged = True
            log.warning("A transaction in flight blocks Watch; nothing newer is shown.", **_log_keys(holder, seconds))

    def _log_end(self, now: float) -> None:
        if self._is_logged and self._holder is not None:
            log.info("Watch continues; the transaction has ended.", **_log_keys(self._holder, now - self._since))
        self._is_logged = False


def _log_keys(holder: OldestTransaction, seconds: float) -> dict[str, object]:
    return {
        "database": holder.database,
        "application": holder.application,
        "pid": holder.pid,
        "state": holder.state,
        "seconds": round(seconds, 1),
    }
