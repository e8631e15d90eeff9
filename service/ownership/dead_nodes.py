"""Ends the leases of nodes of this machine that are dead, without waiting for the ttl.

The kernel says whether a process of a node is left (service/wire/liveness.py). Once none is, nothing can act for its
leases any more: they are ended, and claimed like all others that have expired. If anything is in doubt, they expire by
themselves.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from uuid import UUID

import structlog

from service.domain.errors import Unavailable
from service.ports import Directory

log = structlog.get_logger(__name__)

LIST_EVERY_S = 1.0
"""From one look into the database to the next: which nodes of this machine are there?"""
PROBE_EVERY_S = 0.1
"""From one question to the kernel to the next, about each of them. It takes some 10 µs."""


class DeadNodes:
    """Watches the other nodes of this machine."""

    def __init__(
        self,
        directory: Directory,
        incarnation: UUID,
        scope: str | None,
        is_held: Callable[[UUID], bool],
        on_ended: Callable[[], None],
    ) -> None:
        """`scope`, `is_held`: of pool.liveness. `on_ended`: called when there is something to claim."""
        self._directory = directory
        self._incarnation = incarnation
        self._scope = scope
        self._is_held = is_held
        self._on_ended = on_ended
        self._known: Mapping[UUID, str] = {}
        self._listed_at = float("-inf")

    async def run(self) -> None:
        """Look for ever."""
        while True:
            # While the database is away nothing can be ended. The reconciler logs that.
            with suppress(Unavailable):
                await self.look()
            await asyncio.sleep(PROBE_EVERY_S if self._known else LIST_EVERY_S)

    async def look(self) -> None:
        """End the leases of each node of this machine of which no process is left. Raises Unavailable."""
        if self._scope is None:
            return
        if time.monotonic() >= self._listed_at + LIST_EVERY_S:
            self._known = await self._directory.neighbours(self._incarnation, self._scope)
            self._listed_at = time.monotonic()
        for incarnation, name in list(self._known.items()):
            if not self._is_held(incarnation):
                await self._end(incarnation, name)

    async def _end(self, incarnation: UUID, name: str) -> None:
        ended = await self._directory.end_leases(incarnation)
        if ended is None:
            # Its last connection is being closed.
            return
        # If the database carries out a late claim of the dead node, the next list has it again.
        self._known = {key: value for key, value in self._known.items() if key != incarnation}
        log.info(
            "A node of this machine is dead; ended its leases.", node=name, incarnation=str(incarnation), leases=ended
        )
        if ended:
            self._on_ended()
