"""Keeps this node's leases: one renewal for all of its sessions, and only what it returns may go on.

A renewal that is confirmed gives each session a permit that ends before its lease does, counted on this machine's
monotonic clock from before the renewal was sent. What the renewal does not return is lost: killed at once. What it
returns without having renewed it, because somebody holds the row, goes on with the permit it has, and is tried again by
the next one. What becomes of those whose permits come to their end is `service.ownership.lease_expiry`.
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
from service.ports import LeaseStore, Metrics

log = structlog.get_logger(__name__)


class LeasedSession(Protocol):
    """A session that is owned here, as far as its lease is concerned (sessions.runner.Runner)."""

    session_id: str

    @property
    def safe_until(self) -> float:
        """Until when (time.monotonic()) its lease is known to last; 0 before its first epoch."""

    def permit(self, safe_until: float) -> None:
        """Its lease was renewed."""

    def lose(self) -> None:
        """Treat its lease as lost: kill its process."""


class LeaseRenewer:
    """Renews, permits, and gives up what it no longer holds."""

    def __init__(
        self,
        leases: LeaseStore,
        announce: Callable[[], Announcement],
        times: LeaseTimes,
        held: Callable[[], Sequence[LeasedSession]],
        outages: OutageDetector,
        metrics: Metrics | None = None,
    ) -> None:
        """`outages`: is shown every renewal that is confirmed."""
        self._metrics = metrics or Metrics()
        self._leases = leases
        self._announce = announce
        self._is_draining = False
        self._times = times
        self._held = held
        self._orphaned: Mapping[str, Lease] = {}
        self._held_up: Set[str] = frozenset()
        self._outages = outages

    async def run(self) -> None:
        """For ever: a renewal, then the rest of the interval, of which one that failed does not wait for all."""
        while True:
            due = time.monotonic() + self._times.renew_every
            is_confirmed = await self.renew()
            rest = due - time.monotonic()
            await asyncio.sleep(max(0.0, rest if is_confirmed else min(rest, self._times.renew_retry)))

    async def drain(self) -> None:
        """Say that this node stops, now and with every renewal from now on."""
        self._is_draining = True
        await self.renew()

    async def renew(self) -> bool:
        """Make one renewal, and do what follows from it; False: it failed."""
        sent = time.monotonic()
        # What began after the renewal was sent cannot be in its answer, and need not be.
        before = [held for held in self._held() if held.safe_until > 0]
        announced = replace(self._announce(), is_draining=self._is_draining)
        confirmed: int | None = None
        try:
            async with asyncio.timeout(self._times.renew_timeout):
                renewal = await self._leases.renew(announced, self._times.ttl)
            confirmed = len(renewal.renewed)
        except (Unavailable, TimeoutError) as error:
            log.warning("The leases could not be renewed.", cause=str(error) or type(error).__name__)
            return False
        finally:
            # Failed, whatever kept it from succeeding.
            self._metrics.renewal(time.monotonic() - sent, confirmed)
        self._outages.renewed(sent, time.monotonic())
        mine = {lease.session_id: lease for lease in renewal.renewed}
        held_up = {lease.session_id for lease in renewal.held_up}
        for held in before:
            if held.session_id in mine:
                held.permit(self._times.safe_until(sent))
            elif held.session_id not in held_up:
                held.lose()
            elif held.session_id in self._held_up:
                # Once is nothing: whoever writes to it holds it for a moment.
                log.warning("Somebody holds the session's lease; it is not renewed.", session_id=held.session_id)
        self._held_up = held_up
        # Not those that are held up: a release would wait for whoever holds them.
        await self._release_orphaned(mine, until=sent + self._times.renew_every)
        return True

    async def _release_orphaned(self, mine: Mapping[str, Lease], until: float) -> None:
        """Leases that are ours and that nobody here works for: renewing them would block them.

        Claimed by an answer that never reached us, or handed over by a node that could not tell us. Whoever begins to
        work for one in this very moment raises its epoch, and keeps it.
        """
        held = {one.session_id for one in self._held()}
        unknown = {session_id: lease for session_id, lease in mine.items() if session_id not in held}
        try:
            # Releases go where all writes go, which may be far behind: the next renewal must not wait for that.
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                for session_id, lease in unknown.items():
                    if self._orphaned.get(session_id) == lease:
                        await self._leases.release_orphaned_lease(lease)
                        log.warning("Released a lease that nobody here works for.", session_id=session_id)
        except (Unavailable, TimeoutError) as error:
            log.warning("A stray lease could not be released now.", cause=str(error) or type(error).__name__)
        self._orphaned = unknown
