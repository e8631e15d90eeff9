"""Decides what /readyz reports, from a database probe, the lease renewals and the session processes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from service.domain.lease import LeaseTimes
from service.domain.outage import OutageDetector
from service.domain.readiness import PROBE_TIMEOUT_S, DatabaseHealth

log = structlog.get_logger(__name__)


class DatabaseProbe:
    """Queries Postgres about once a second, on the connections that calls use."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Take `ask`, which runs one short statement and raises any error that calls would get."""
        self._ask = ask
        self._health = DatabaseHealth(time.monotonic())

    @property
    def fault(self) -> str | None:
        """The reason why calls that need the database fail; None while Postgres answers."""
        if self._health.is_reachable:
            return None
        return f"Postgres has not answered for {self._health.silent_for(time.monotonic()):.1f} s"

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            await self.probe()
            await asyncio.sleep(self._health.next_probe_s)

    async def probe(self) -> None:
        """Query once, record the result, and log a change of reachability."""
        was_reachable = self._health.is_reachable
        cause = ""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._ask()
        except Exception as error:  # noqa: BLE001 - calls would fail with the same error; the log names it
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
    """Return the reasons why the node is not ready. `overdue` returns the sessions whose killed process still runs."""
    reasons = {}
    silent = time.monotonic() - outages.renewed_at
    if (fault := probe.fault) is not None:
        reasons["database"] = fault
    elif silent > times.ttl - times.margin:
        # Postgres answers the probe but does not renew leases: another transaction locks their rows.
        reasons["database"] = f"no lease renewal has succeeded for {silent:.1f} s"
    if sessions := overdue():
        reasons["processes"] = f"killed, but still running: the processes of {', '.join(sessions)}"
    return reasons
