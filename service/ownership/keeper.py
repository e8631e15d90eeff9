"""Keeps this node's leases: one renewal for all of its sessions, and only what it returns may go on.

A renewal that is confirmed gives each session a permit that ends before its lease does, counted on this machine's
monotonic clock from before the renewal was sent. What the renewal does not return is lost: killed at once. What becomes
of the others while no renewal comes through is `service.ownership.fence`.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import structlog

from service.domain.errors import Unavailable
from service.domain.lease import Announcement, Lease, LeaseTimes
from service.ports import LeaseStore

log = structlog.get_logger(__name__)


class Held(Protocol):
    """A session that is owned here, as far as its lease is concerned (sessions.runner.Runner)."""

    session_id: str

    @property
    def safe_until(self) -> float:
        """Until when (time.monotonic()) its lease is known to last; 0 before its first epoch."""

    def permit(self, safe_until: float) -> None:
        """Its lease was renewed."""

    def lose(self) -> None:
        """Its lease is lost."""


class Keeper:
    """Renews, permits, and gives up what it no longer holds."""

    def __init__(
        self,
        leases: LeaseStore,
        announced: Announcement,
        times: LeaseTimes,
        held: Callable[[], Iterator[Held]],
    ) -> None:
        self._leases = leases
        self._announced = announced
        self._times = times
        self._held = held
        self._strays: Mapping[str, Lease] = {}
        self.renewed_at = time.monotonic()
        """When the last confirmed renewal was sent (time.monotonic())."""

    async def run(self) -> None:
        """For ever: a renewal, then the rest of the interval."""
        while True:
            sent = time.monotonic()
            await self.renew()
            await asyncio.sleep(max(0.0, sent + self._times.renew_every - time.monotonic()))

    async def drain(self) -> None:
        """Say that this node stops, now and with every renewal from now on."""
        self._announced = replace(self._announced, is_draining=True)
        await self.renew()

    async def renew(self) -> None:
        """One renewal, and what follows from it."""
        sent = time.monotonic()
        # What began after the renewal was sent cannot be in its answer, and need not be.
        before = [held for held in self._held() if held.safe_until > 0]
        try:
            async with asyncio.timeout(self._times.renew_timeout):
                leases = await self._leases.renew(self._announced, self._times.ttl)
        except (Unavailable, TimeoutError) as error:
            log.warning("The leases could not be renewed.", cause=str(error) or type(error).__name__)
            return
        self.renewed_at = sent
        mine = {lease.session_id: lease for lease in leases}
        for held in before:
            if held.session_id in mine:
                held.permit(self._times.safe_until(sent))
            else:
                held.lose()
        await self._release_strays(mine)

    async def _release_strays(self, mine: Mapping[str, Lease]) -> None:
        """Leases that are ours and that nobody here works for: renewing them would block them.

        Claimed by an answer that never reached us, or handed over by a node that could not tell us. Whoever begins to
        work for one in this very moment raises its epoch, and keeps it.
        """
        held = {one.session_id for one in self._held()}
        unknown = {session_id: lease for session_id, lease in mine.items() if session_id not in held}
        try:
            # Releases go where all writes go, which may be far behind: the next renewal must not wait for that.
            async with asyncio.timeout(self._times.renew_timeout):
                for session_id, lease in unknown.items():
                    if self._strays.get(session_id) == lease:
                        await self._leases.release_stray(lease)
                        log.warning("Released a lease that nobody here works for.", session_id=session_id)
        except (Unavailable, TimeoutError) as error:
            log.warning("A stray lease could not be released now.", cause=str(error) or type(error).__name__)
        self._strays = unknown
