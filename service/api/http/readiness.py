"""What /readyz says: the database is probed for it, leases and processes are looked at."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from service.domain.lease import LeaseTimes
from service.domain.outage import OutageDetector
from service.domain.readiness import PROBE_TIMEOUT_S, DatabaseHealth

log = structlog.get_logger(__name__)


class DatabaseProbe:
    """Asks Postgres about once a second whether it answers, on the connections that calls use."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        """`ask`: one short statement; raises whatever a call would fail of."""
        self._ask = ask
        self._health = DatabaseHealth(time.monotonic())

    @property
    def fault(self) -> str | None:
        """Why calls that need the database fail, in words; None while it answers."""
        if self._health.is_reachable:
            return None
        return f"Postgres has not answered for {self._health.silent_for(time.monotonic()):.1f} s"

    async def run(self) -> None:
        """Probe for ever."""
        while True:
            await self.probe()
            await asyncio.sleep(self._health.next_probe_s)

    async def probe(self) -> None:
        """Ask once, and note what becomes of it."""
        was_reachable = self._health.is_reachable
        cause = ""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, calls fail of it as well; it is named in the log
            self._health.failed()
            cause = str(error) or type(error).__name__
        else:
            self._health.answered(time.monotonic())
        if was_reachable and not self._health.is_reachable:
            log.warning("The node is not ready: Postgres does not answer.", cause=cause)
        elif self._health.is_reachable and not was_reachable:
            log.info("Postgres answers again.")


def reasons_not_ready(
    probe: DatabaseProbe, outages: OutageDetector, times: LeaseTimes, overdue: Callable[[], Sequence[str]]
) -> Mapping[str, str]:
    """Return what keeps the node from being ready, in words. `overdue`: sessions whose processes do not die."""
    reasons = {}
    silent = time.monotonic() - outages.renewed_at
    if (fault := probe.fault) is not None:
        reasons["database"] = fault
    elif silent > times.ttl - times.margin:
        # It answers calls, but not this: a lock is held over the leases.
        reasons["database"] = f"no renewal of the leases came through for {silent:.1f} s"
    if sessions := overdue():
        reasons["processes"] = f"killed, but not seen dead: the processes of {', '.join(sessions)}"
    return reasons
