"""Hands sessions of this node over to nodes that own fewer, after a node has joined or an outage has ended.

It moves one session at a time, the longest idle first, and only while there is no outage. service.domain.rebalance
chooses the target; the hand-over is the same as in a planned stop.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

import structlog

from service.domain.errors import Unavailable
from service.domain.lease import Node
from service.domain.rebalance import Rebalance
from service.ownership.handover import Handover, HandoverSession
from service.ports.leases import Directory

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S = 5.0
"""Seconds between two looks at the nodes' session counts, give or take half, so that nodes do not look together."""
REFUSED_PAUSE_S = 30.0
"""Seconds to the next look after a node did not take a session."""
EXPECT_TIMEOUT_S = 2.0
"""Seconds for a target to prepare for a session, which stays connected meanwhile."""
IDLEST_SESSIONS = 20
"""Sessions that are considered for each move; those that cannot be moved now are skipped."""


class Settled(Protocol):
    """The state of this node's sessions (ownership.reconciler.Reconciler)."""

    @property
    def is_settled(self) -> bool:
        """Return whether there is no outage and at most one session is away."""


class Rebalancer:
    """Moves sessions away from a node that owns more than others."""

    def __init__(
        self,
        incarnation: UUID,
        directory: Directory,
        settled: Settled,
        session: Callable[[str], HandoverSession | None],
        hand_over: Handover,
        moved: Callable[[], None],
        *,
        is_on: bool,
    ) -> None:
        """`session` finds a session that is owned here. `moved` counts a move. Without `is_on` nothing is moved."""
        self._incarnation = incarnation
        self._directory = directory
        self._settled = settled
        self._session = session
        self._hand_over = hand_over
        self._moved = moved
        self._is_on = is_on
        self._rebalance = Rebalance(incarnation)
        self._move: asyncio.Task[bool] | None = None
        self._pause_s = 0.0
        self.moving: str | None = None
        """The session that is being handed over."""

    async def run(self) -> None:
        """Look at the counts forever, and move sessions while this node owns too many."""
        while self._is_on:
            self._pause_s = LOOK_INTERVAL_S * random.uniform(0.5, 1.5)  # noqa: S311 - not for secrets
            try:
                await self.share_out()
            except Unavailable as error:
                self._rebalance.disturb()
                log.info("Cannot count the nodes' sessions; retrying.", cause=error.message)
            except Exception:
                log.exception("Sessions could not be rebalanced; retrying.")
            await asyncio.sleep(self._pause_s)

    async def finish(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the move in progress. `run` must have ended."""
        if self._move is not None:
            await asyncio.wait((self._move,), timeout=timeout)

    async def share_out(self) -> None:
        """Move sessions until this node owns its share, or a move is not possible now. Raises Unavailable."""
        began, count = time.monotonic(), 0
        try:
            while (target := await self._next_target()) is not None and await self._move_one(target):
                count += 1
        finally:
            if count:
                log.info(
                    "This node owned more sessions than others, and handed over the longest idle.",
                    sessions=count,
                    seconds=round(time.monotonic() - began, 1),
                )

    async def _next_target(self) -> Node | None:
        """Return where the next session goes; read the counts again, since other nodes move sessions too."""
        if not self._settled.is_settled:
            self._rebalance.disturb()
            return None
        return self._rebalance.target(await self._directory.fleet(), time.monotonic())

    async def _move_one(self, target: Node) -> bool:
        """Hand over the longest idle session that can be moved; False if none was."""
        for session_id in await self._directory.idlest(self._incarnation, IDLEST_SESSIONS):
            session = self._session(session_id)
            if session is None or not self._hand_over.is_idle(session_id):
                continue
            try:
                await self._hand_over.prepare(target, session_id, EXPECT_TIMEOUT_S)
            except Unavailable as error:
                self._pause_s = REFUSED_PAUSE_S
                log.info("A node did not take a session.", session_id=session_id, target=target.name, cause=str(error))
                return False
            self._move = asyncio.create_task(self._carry_out(session, target), name=f"rebalance-{session_id}")
            # Shielded: a cancelled move could leave the lease with a target that was never notified.
            return await asyncio.shield(self._move)
        return False

    async def _carry_out(self, session: HandoverSession, target: Node) -> bool:
        self.moving = session.session_id
        try:
            is_moved = await self._hand_over.carry_out(session, target, even_while_sending=False)
        finally:
            self.moving = None
        if is_moved:
            self._moved()
        return is_moved
