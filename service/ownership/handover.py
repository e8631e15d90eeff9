"""Hands a session over to another node, so that it is away for a moment only.

A node that stops hands over all of its sessions (`HandoverSource`); one that owns more than others hands over some
(rebalancer.py).

    source                                  target
    ── Expect ───────────────────────────▶  takes a turn: it can start a process at once
    no more sends; those in flight end
    stops the process; sees it dead
    makes the lease the taker's (one statement)
    ── Take ─────────────────────────────▶  begins an epoch, starts a process
    ◀─────────────────────────── connected

Whatever fails, the lease decides: before it is the taker's the session is released like any other, after that it is
the taker's to keep or to give up.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

import structlog

from service.domain import placement
from service.domain.errors import Unavailable
from service.domain.handover import CONNECT_WAIT_S, HandoverConcurrency
from service.domain.lease import Node
from service.domain.placement import Candidate
from service.domain.start_scheduler import PERMIT_TTL_S, Lane
from service.ports import Directory, PermitSource, StartPermit

log = structlog.get_logger(__name__)

TARGET_ATTEMPTS = 3
"""Nodes that are asked to take a session, one after the other."""
ARRIVAL_POLL_S = 2.0
"""Seconds to find out who goes on."""
ON_THE_WAY = 10.0
"""Seconds for those whose process is being stopped: more than a stop takes."""
IN_FLIGHT = 2.0
"""Seconds for what is being sent before its process is stopped."""
AT_ONCE = 1
"""Hand-overs to each heir at a time, from the stop of the one process until the other one is connected; more only if
there would not be time for so many."""
ARRIVAL_FIRST_POLL_S = 0.02
"""Seconds between two looks whether it is."""


class HandoverPeers(Protocol):
    """Other nodes."""

    async def expect(self, target: Node, session_id: str, timeout: float) -> None:
        """Have it be ready for a session within so many seconds. Raises Unavailable."""

    async def take(self, target: Node, session_id: str) -> None:
        """Tell it that the session's lease is its own, and wait for its arrival. Raises Unavailable."""


class InFlightSends(Protocol):
    """What callers have sent by this node's sessions (sessions.sending.Sending)."""

    def is_sending(self, session_id: str) -> bool:
        """Something is being sent by a session, or waits for that."""

    def paused(self, session_id: str, timeout: float) -> AbstractAsyncContextManager[bool]:
        """Take no more for a session meanwhile, and wait for what is being sent; False: that takes longer."""


class HandoverSession(Protocol):
    """A session to hand over (sessions.runner.Runner)."""

    session_id: str
    is_handed_over: bool

    @property
    def is_running(self) -> bool:
        """There is a process of it."""

    def hand_over_or_stop(self, target: Node | None = None) -> None:
        """Stop its process, and make its lease the heir's."""


class LocalSessions(Protocol):
    """What runs here (ownership.reconciler.Reconciler)."""

    @property
    def room(self) -> int:
        """How many sessions more this node takes."""

    def running(self, session_id: str) -> "asyncio.Task[None] | None":
        """The task of a session that is owned here."""

    def is_connected(self, session_id: str) -> bool:
        """A session is owned here, and connected."""

    def take(self, session_id: str, turn: StartPermit | None) -> None:
        """Run a session whose lease is ours."""


class Handover:
    """Of one session to a node that is chosen already."""

    def __init__(self, peers: HandoverPeers, calls: InFlightSends, owned: LocalSessions) -> None:
        self._peers = peers
        self._calls = calls
        self._owned = owned

    def is_harmless(self, session_id: str) -> bool:
        """Whether nobody notices more of it than that the session is away for a moment."""
        return self._owned.is_connected(session_id) and not self._calls.is_sending(session_id)

    async def expect(self, target: Node, session_id: str, timeout: float) -> None:
        """Have a node be ready for a session, which goes on meanwhile. Raises Unavailable."""
        await self._peers.expect(target, session_id, timeout)

    async def carry_out(self, session: HandoverSession, target: Node, *, even_while_sending: bool) -> bool:
        """Stop a session that is expected, make its lease the heir's, and wait for its arrival. False: it stays.

        It takes no sends meanwhile, and takes them again if it stays. `even_while_sending`: it is stopped although
        something is still being sent after IN_FLIGHT seconds.
        """
        began = time.monotonic()
        async with self._calls.paused(session.session_id, IN_FLIGHT) as is_idle:
            if not is_idle and not even_while_sending:
                return False
            session.hand_over_or_stop(target)
            if (running := self._owned.running(session.session_id)) is not None:
                await asyncio.wait((running,))
        if not session.is_handed_over:
            return False
        ms = round(1000 * (time.monotonic() - began))
        log.info("Handed a session over.", session_id=session.session_id, target=target.name, ms=ms)
        try:
            await self._peers.take(target, session.session_id)
        except Unavailable as error:
            log.warning(
                "The heir was not told.", session_id=session.session_id, target=target.name, cause=error.message
            )
        return True


class HandoverSource:
    """Of a node that stops."""

    def __init__(self, incarnation: UUID, directory: Directory, hand_over: Handover) -> None:
        self._incarnation = incarnation
        self._directory = directory
        self._hand_over = hand_over
        self._reserved: Counter[UUID] = Counter()
        self._candidates: Sequence[Candidate] = ()
        self._until = 0.0
        self._transferring: set[asyncio.Task[None]] = set()

    async def give(self, sessions: Sequence[HandoverSession], grace: float) -> None:
        """Hand over what can be handed over within `grace` seconds; the rest is left as it is.

        Only what has a process: what waits for its next attempt is nobody's while it waits.
        """
        self._until = time.monotonic() + grace
        try:
            async with asyncio.timeout(min(grace, ARRIVAL_POLL_S)):
                self._candidates = await self._directory.targets(self._incarnation)
        except (Unavailable, TimeoutError) as error:
            log.warning("Sessions cannot be handed over.", cause=str(error) or "the database is silent")
            return
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self._give_all([one for one in sessions if one.is_running], tasks)
            # Those that still look for an heir are left; those that have one are on their way.
            for task in tasks - self._transferring:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=ON_THE_WAY)
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (fault := task.exception()) is not None:
                log.error("A session could not be handed over.", exc_info=fault)

    async def _give_all(self, sessions: Sequence[HandoverSession], tasks: set[asyncio.Task[None]]) -> None:
        """Few at a time, until all are handed over or there is no time left."""
        waiting, concurrency = list(sessions), HandoverConcurrency(AT_ONCE * max(1, len(self._candidates)))
        going: set[asyncio.Task[None]] = set()
        while (seconds := self._until - time.monotonic()) > 0 and (waiting or going):
            while waiting and len(going) < concurrency.needed(len(waiting) + len(going), seconds):
                session = waiting.pop(0)
                task = asyncio.create_task(self._timed(session, concurrency), name=f"give-{session.session_id}")
                going.add(task)
                tasks.add(task)
            _, going = await asyncio.wait(going, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    async def _timed(self, session: HandoverSession, concurrency: HandoverConcurrency) -> None:
        began = time.monotonic()
        await self._give(session)
        concurrency.took(time.monotonic() - began)

    async def _give(self, session: HandoverSession) -> None:
        if (target := await self._find_target(session.session_id)) is None:
            return
        if (this := asyncio.current_task()) is not None:
            self._transferring.add(this)
        await self._hand_over.carry_out(session, target, even_while_sending=True)

    async def _find_target(self, session_id: str) -> Node | None:
        """A node that is ready for it; None: there is none."""
        refused: set[UUID] = set()
        for _ in range(TARGET_ATTEMPTS):
            left = [one for one in self._candidates if one.node.incarnation not in refused]
            target = placement.select_target(left, self._reserved)
            seconds = self._until - time.monotonic()
            if target is None or seconds <= 0:
                return None
            self._reserved[target.incarnation] += 1
            try:
                await self._hand_over.expect(target, session_id, seconds)
            except Unavailable as error:
                log.info("A node does not take a session.", session_id=session_id, target=target.name, cause=str(error))
                self._reserved[target.incarnation] -= 1
                refused.add(target.incarnation)
            else:
                return target
        return None


class HandoverTarget:
    """Of a node that goes on."""

    def __init__(self, gate: PermitSource, owned: LocalSessions) -> None:
        self._gate = gate
        self._owned = owned
        self._expected: dict[str, tuple[StartPermit, float]] = {}
        self._asking = 0
        self._is_draining = False

    def drain(self) -> None:
        """Take nothing more."""
        self._is_draining = True

    async def expect(self, session_id: str) -> None:
        """Be ready to start a session at once, for some seconds. Raises Unavailable."""
        self._forget_old()
        self._refuse_if_draining()
        if self._owned.running(session_id) is not None:
            # It lost it, and does not see its process dead: the lease would be kept and nothing started on it.
            raise Unavailable("this node is not done with the session itself", reason="NODE_NOT_DONE")
        # Asked again, since the answer was lost, it needs no more room than before.
        others = len(self._expected.keys() - {session_id})
        if self._owned.room - others - self._asking <= 0:
            raise Unavailable("this node takes no more sessions", reason="NODE_FULL")
        self._asking += 1
        try:
            turn = (await self._gate.turns(Lane.FALLEN, 1))[0]
        finally:
            self._asking -= 1
        if self._is_draining:
            turn.give_back()
        self._refuse_if_draining()
        if (before := self._expected.pop(session_id, None)) is not None:
            before[0].give_back()
        self._expected[session_id] = turn, time.monotonic()

    async def take(self, session_id: str) -> None:
        """Its lease is ours: start it, at once, and return when it is connected, or has had ARRIVAL seconds for that.

        If it was not expected, or too long ago, it waits for a turn like any other.
        """
        turn, _ = self._expected.pop(session_id, (None, 0.0))
        self._owned.take(session_id, turn)
        until = time.monotonic() + CONNECT_WAIT_S
        while self._is_on_its_way(session_id) and time.monotonic() < until:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(ARRIVAL_FIRST_POLL_S)

    def _is_on_its_way(self, session_id: str) -> bool:
        return self._owned.running(session_id) is not None and not self._owned.is_connected(session_id)

    def _refuse_if_draining(self) -> None:
        if self._is_draining:
            raise Unavailable("this node is stopping", reason="NODE_DRAINING")

    def _forget_old(self) -> None:
        for session_id, (turn, since) in list(self._expected.items()):
            if time.monotonic() - since > PERMIT_TTL_S:
                turn.give_back()
                del self._expected[session_id]
