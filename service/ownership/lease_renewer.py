"""Renews this node's leases in one statement, and gives the sessions their run permits.

A confirmed renewal gives each session a run permit that ends before its lease, counted on this machine's monotonic
clock from before the renewal was sent. A session whose lease is not returned is lost: its process is killed at once. A
lease whose row is locked is returned without being renewed: its session keeps its permit, and the next renewal retries.
`service.ownership.lease_expiry` handles permits that run out.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Protocol

import structlog

from service.domain.errors import Unavailable
from service.domain.lease import Announcement, Lease, LeaseTimes
from service.domain.outage import OutageDetector
from service.ports.leases import LeaseStore
from service.ports.metrics import Metrics

log = structlog.get_logger(__name__)


class LeasedSession(Protocol):
    """A session that is owned here (sessions.runner.Runner)."""

    session_id: str

    @property
    def safe_until(self) -> float:
        """Return the time.monotonic() until which the lease is known to last; 0 before the first epoch."""

    def permit(self, safe_until: float) -> None:
        """Extend the run permit: the lease was renewed."""

    def lose(self) -> None:
        """Kill the process: the lease is lost."""


class LeaseRenewer:
    """Renews leases, and releases orphaned ones."""

    def __init__(
        self,
        leases: LeaseStore,
        announce: Callable[[], Announcement],
        times: LeaseTimes,
        held: Callable[[], Sequence[LeasedSession]],
        outages: OutageDetector,
        metrics: Metrics | None = None,
    ) -> None:
        """`outages` observes every confirmed renewal."""
        self._metrics = metrics or Metrics()
        self._leases = leases
        self._announce = announce
        self._is_draining = False
        self._times = times
        self._held = held
        self._orphaned: Mapping[str, Lease] = {}
        self._locked: Set[str] = frozenset()
        self._outages = outages

    async def run(self) -> None:
        """Renew forever, once each interval, and sooner after a failure."""
        while True:
            due = time.monotonic() + self._times.renew_every
            is_confirmed = await self.renew()
            rest = due - time.monotonic()
            await asyncio.sleep(max(0.0, rest if is_confirmed else min(rest, self._times.renew_retry)))

    async def drain(self) -> None:
        """Announce that this node stops, now and with every further renewal."""
        self._is_draining = True
        await self.renew()

    async def renew(self) -> bool:
        """Make one renewal and apply its result; False if it failed."""
        sent = time.monotonic()
        # A session that begins later may be missing in the answer, and is not lost.
        before = [held for held in self._held() if held.safe_until > 0]
        announced = replace(self._announce(), is_draining=self._is_draining)
        confirmed: int | None = None
        try:
            async with asyncio.timeout(self._times.renew_timeout):
                renewal = await self._leases.renew(announced, self._times.ttl)
            confirmed = len(renewal.renewed)
        except (Unavailable, TimeoutError) as error:
            log.warning("Lease renewal failed; retrying.", cause=str(error) or type(error).__name__)
            return False
        finally:
            # Also counts a renewal that was cancelled or raised; `confirmed` is None then.
            self._metrics.renewal(time.monotonic() - sent, confirmed)
        self._outages.renewed(sent, time.monotonic())
        mine = {lease.session_id: lease for lease in renewal.renewed}
        locked = {lease.session_id for lease in renewal.held_up}
        for held in before:
            if held.session_id in mine:
                held.permit(self._times.safe_until(sent))
            elif held.session_id not in locked:
                held.lose()
            elif held.session_id in self._locked:
                # Logged the second time only: every write to the row locks it briefly.
                log.warning("Lease row is locked by another transaction; not renewed.", session_id=held.session_id)
        self._locked = locked
        # Locked leases are left out: their release would wait for the lock.
        await self._release_orphaned(mine, until=sent + self._times.renew_every)
        return True

    async def _release_orphaned(self, mine: Mapping[str, Lease], until: float) -> None:
        """Release leases that two renewals in a row have returned without a session here; renewing would block them.

        The answer to their claim was lost, or this node was not notified of a hand-over. A session that begins on such
        a lease meanwhile raises the epoch, and so keeps it.
        """
        held = {one.session_id for one in self._held()}
        unknown = {session_id: lease for session_id, lease in mine.items() if session_id not in held}
        try:
            # Releases share a connection pool with all other writes: the next renewal must not wait for them.
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                for session_id, lease in unknown.items():
                    if self._orphaned.get(session_id) == lease:
                        await self._leases.release_orphaned_lease(lease)
                        log.warning("Released an orphaned lease.", session_id=session_id)
        except (Unavailable, TimeoutError) as error:
            log.warning("An orphaned lease could not be released; retrying.", cause=str(error) or type(error).__name__)
        self._orphaned = unknown
