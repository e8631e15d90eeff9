"""Hands sessions of this node to nodes that own fewer: when a node has joined, or an outage has left them uneven.

Gently: only while all is calm, one session at a time, the one that has been idle for longest first, by the same
hand-over as in a planned stop. Who gives to whom is service.domain.rebalance.
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
from service.ports import Directory

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S = 5.0
"""Between two looks at who owns how many; up to half of it more or less, so that nodes do not look together."""
REFUSED_PAUSE_S = 30.0
"""From a node that did not take a session to the next look."""
EXPECT_TIMEOUT_S = 2.0
"""How long a node may take to be ready for a session, which goes on meanwhile."""
IDLEST_SESSIONS = 20
"""So many are looked at for each move; those that cannot be moved now are passed over."""


class Settled(Protocol):
    """What goes on (ownership.reconciler.Reconciler)."""

    @property
    def is_settled(self) -> bool:
        """No outage goes on, and no crowd of sessions is on its way back."""


class Rebalancer:
    """Of a node that goes on."""

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
        """`session`: by its id, if it is owned here. `moved` counts one. `is_on`: otherwise nothing is moved."""
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
        """Look for ever, and move one session after the other while there is one to move."""
        while self._is_on:
            self._pause_s = LOOK_INTERVAL_S * random.uniform(0.5, 1.5)  # noqa: S311 - not for secrets
            try:
                await self.share_out()
            except Unavailable as error:
                self._rebalance.disturb()
                log.info("Who owns how many sessions is not known now.", cause=error.message)
            except Exception:
                log.exception("Sessions could not be shared out; the next look tries again.")
            await asyncio.sleep(self._pause_s)

    async def finish(self, timeout: float) -> None:
        """Wait for the session that is on its way, once `run` has been ended."""
        if self._move is not None:
            await asyncio.wait((self._move,), timeout=timeout)

    async def share_out(self) -> None:
        """Move sessions until this node owns its share, or something else goes on. Raises Unavailable."""
        began, count = time.monotonic(), 0
        try:
            while (target := await self._target()) is not None and await self._move_one(target):
                count += 1
        finally:
            if count:
                log.info(
                    "This node owned more sessions than others, and handed over those that were idle for longest.",
                    sessions=count,
                    seconds=round(time.monotonic() - began, 1),
                )

    async def _target(self) -> Node | None:
        """Read the numbers anew before each move: other nodes move theirs meanwhile."""
        if not self._settled.is_settled:
            self._rebalance.disturb()
            return None
        return self._rebalance.target(await self._directory.fleet(), time.monotonic())

    async def _move_one(self, target: Node) -> bool:
        """Hand over the session that has been idle for longest and can be moved; False: none was."""
        for session_id in await self._directory.idlest(self._incarnation, IDLEST_SESSIONS):
            session = self._session(session_id)
            if session is None or not self._hand_over.is_harmless(session_id):
                continue
            try:
                await self._hand_over.expect(target, session_id, EXPECT_TIMEOUT_S)
            except Unavailable as error:
                self._pause_s = REFUSED_PAUSE_S
                log.info("A node does not take a session.", session_id=session_id, target=target.name, cause=str(error))
                return False
            self._move = asyncio.create_task(self._carry_out(session, target), name=f"rebalance-{session_id}")
            # Shielded: a move that is cut in the middle would leave a lease with a node that knows nothing of it.
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
