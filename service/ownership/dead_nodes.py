"""Ends the leases of dead nodes on this machine, without waiting for the ttl.

The kernel says whether a process of a node is left (service/wire/liveness.py). Once none is, nothing can act under the
node's leases: they are ended, and claimed like other expired leases. In doubt they are left to expire.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from uuid import UUID

import structlog

from service.domain.errors import Unavailable
from service.ports.leases import Directory

log = structlog.get_logger(__name__)

LIST_EVERY_S = 1.0
"""Seconds between two lists of this machine's nodes from the database."""
PROBE_EVERY_S = 0.1
"""Seconds between two probes of the kernel for each node. A probe takes some 10 µs."""


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
        """`scope` and `is_held` are those of wire.liveness; `on_ended` is called when there are leases to claim."""
        self._directory = directory
        self._incarnation = incarnation
        self._scope = scope
        self._is_held = is_held
        self._on_ended = on_ended
        self._known: Mapping[UUID, str] = {}
        self._listed_at = float("-inf")

    async def run(self) -> None:
        """Look forever."""
        while True:
            # The reconciler logs that the database is unavailable.
            with suppress(Unavailable):
                await self.look()
            await asyncio.sleep(PROBE_EVERY_S if self._known else LIST_EVERY_S)

    async def look(self) -> None:
        """End the leases of each node of this machine that has no process left. Raises Unavailable."""
        if self._scope is None:
            return
        if time.monotonic() >= self._listed_at + LIST_EVERY_S:
            self._known = await self._directory.neighbours(self._incarnation, self._scope)
            self._listed_at = time.monotonic()
        for incarnation, name in list(self._known.items()):
            if not self._is_held(incarnation):
                await self._end_leases(incarnation, name)

    async def _end_leases(self, incarnation: UUID, name: str) -> None:
        ended = await self._directory.end_leases(incarnation)
        if ended is None:
            # Postgres has not yet closed the node's last connection.
            return
        # If a late claim of the dead node still succeeds, the next list contains the node again.
        self._known = {key: value for key, value in self._known.items() if key != incarnation}
        log.info(
            "A node of this machine is dead; ended its leases.", node=name, incarnation=str(incarnation), leases=ended
        )
        if ended:
            self._on_ended()
