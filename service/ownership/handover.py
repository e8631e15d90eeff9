"""Hands a session over to another node, so that it is disconnected for a moment only.

A node that stops hands over all of its sessions (`HandoverSource`); rebalancer.py hands over single ones.

    source                                  target
    ── Expect ───────────────────────────▶  takes a start permit, so that it can start a process at once
    accepts no more sends; waits for those in flight
    stops the process; sees it dead
    makes the lease the target's (one statement)
    ── Take ─────────────────────────────▶  begins an epoch, starts a process
    ◀─────────────────────────── connected

If a step fails, the lease decides. Before it is the target's, the session is released like any other. Afterwards the
target keeps it or gives it up.
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
from service.ports.leases import Directory
from service.ports.processes import PermitSource, StartPermit

log = structlog.get_logger(__name__)

TARGET_ATTEMPTS = 3
"""Nodes that are asked to take a session, one after the other."""
TARGET_LOOKUP_TIMEOUT_S = 2.0
"""Seconds to read the possible targets from the database."""
TRANSFER_TIMEOUT_S = 10.0
"""Seconds for the transfers that have begun: more than the stop of a process takes."""
IN_FLIGHT_TIMEOUT_S = 2.0
"""Seconds for sends in flight before their session's process is stopped."""
TRANSFERS_PER_TARGET = 1
"""Concurrent hand-overs to each target, from the stop of one process until the next one is connected; more only if the
time would not suffice."""
CONNECT_POLL_S = 0.02
"""Seconds between two checks whether a session is connected."""


class HandoverPeers(Protocol):
    """The other nodes."""

    async def prepare(self, target: Node, session_id: str, timeout: float) -> None:
        """Have the target prepare for a session within `timeout` seconds. Raises Unavailable."""

    async def accept(self, target: Node, session_id: str) -> None:
        """Notify the target that it owns the session's lease, and wait until it is connected. Raises Unavailable."""


class InFlightSends(Protocol):
    """The messages that callers send through this node (messaging.sender.MessageSender)."""

    def is_sending(self, session_id: str) -> bool:
        """Return whether a send of the session is in flight or queued."""

    def paused(self, session_id: str, timeout: float) -> AbstractAsyncContextManager[bool]:
        """Refuse new sends in this context; yield False if those in flight take longer than `timeout` seconds."""


class HandoverSession(Protocol):
    """A session to hand over (sessions.runner.Runner)."""

    session_id: str
    is_handed_over: bool

    @property
    def is_running(self) -> bool:
        """Return whether the session has a process."""

    def hand_over_or_stop(self, target: Node | None = None) -> None:
        """Stop the session's process, and make its lease the target's."""


class LocalSessions(Protocol):
    """The sessions owned here (ownership.reconciler.Reconciler)."""

    @property
    def room(self) -> int:
        """Return how many more sessions this node takes."""

    def running(self, session_id: str) -> "asyncio.Task[None] | None":
        """Return the task of a session that is owned here."""

    def is_connected(self, session_id: str) -> bool:
        """Return whether a session is owned here and connected."""

    def take(self, session_id: str, permit: StartPermit | None) -> None:
        """Run a session whose lease is this node's."""


class Handover:
    """Hands one session over to a node that is chosen already."""

    def __init__(self, peers: HandoverPeers, calls: InFlightSends, owned: LocalSessions) -> None:
        self._peers = peers
        self._calls = calls
        self._owned = owned

    def is_idle(self, session_id: str) -> bool:
        """Return whether the session is connected and sends nothing, so that a hand-over delays no send."""
        return self._owned.is_connected(session_id) and not self._calls.is_sending(session_id)

    async def prepare(self, target: Node, session_id: str, timeout: float) -> None:
        """Have the target prepare for a session, which stays connected meanwhile. Raises Unavailable."""
        await self._peers.prepare(target, session_id, timeout)

    async def carry_out(self, session: HandoverSession, target: Node, *, even_while_sending: bool) -> bool:
        """Stop a session, make its lease the target's, and wait until it is connected there. False: it stays.

        The target must expect the session. The session accepts no sends meanwhile, and accepts them again if it stays.
        With `even_while_sending` it is stopped even if a send is in flight after IN_FLIGHT_TIMEOUT_S.
        """
        began = time.monotonic()
        async with self._calls.paused(session.session_id, IN_FLIGHT_TIMEOUT_S) as is_idle:
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
            await self._peers.accept(target, session.session_id)
        except Unavailable as error:
            log.warning(
                "Target was not notified.", session_id=session.session_id, target=target.name, cause=error.message
            )
        return True


class HandoverSource:
    """Hands over the sessions of a node that stops."""

    def __init__(self, incarnation: UUID, directory: Directory, hand_over: Handover) -> None:
        self._incarnation = incarnation
        self._directory = directory
        self._hand_over = hand_over
        self._reserved: Counter[UUID] = Counter()
        self._candidates: Sequence[Candidate] = ()
        self._deadline = 0.0
        self._transferring: set[asyncio.Task[None]] = set()

    async def give(self, sessions: Sequence[HandoverSession], grace: float) -> None:
        """Hand over the sessions that have a process, as far as `grace` seconds allow; leave the others as they are.

        A session that waits for its next attempt has no owner meanwhile, and needs no hand-over.
        """
        self._deadline = time.monotonic() + grace
        try:
            async with asyncio.timeout(min(grace, TARGET_LOOKUP_TIMEOUT_S)):
                self._candidates = await self._directory.targets(self._incarnation)
        except (Unavailable, TimeoutError) as error:
            log.warning("Cannot hand sessions over; releasing them.", cause=str(error) or "the database is silent")
            return
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self._transfer_all([one for one in sessions if one.is_running], tasks)
            # Only transfers that have a target may finish.
            for task in tasks - self._transferring:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=TRANSFER_TIMEOUT_S)
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (fault := task.exception()) is not None:
                log.error("A session could not be handed over.", exc_info=fault)

    async def _transfer_all(self, sessions: Sequence[HandoverSession], tasks: set[asyncio.Task[None]]) -> None:
        """Transfer the sessions, few at a time, until all are handed over or the time is up."""
        waiting = list(sessions)
        concurrency = HandoverConcurrency(TRANSFERS_PER_TARGET * max(1, len(self._candidates)))
        pending: set[asyncio.Task[None]] = set()
        while (seconds := self._deadline - time.monotonic()) > 0 and (waiting or pending):
            while waiting and len(pending) < concurrency.needed(len(waiting) + len(pending), seconds):
                session = waiting.pop(0)
                task = asyncio.create_task(self._run_timed(session, concurrency), name=f"give-{session.session_id}")
                pending.add(task)
                tasks.add(task)
            _, pending = await asyncio.wait(pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    async def _run_timed(self, session: HandoverSession, concurrency: HandoverConcurrency) -> None:
        began = time.monotonic()
        await self._transfer(session)
        concurrency.took(time.monotonic() - began)

    async def _transfer(self, session: HandoverSession) -> None:
        if (target := await self._find_target(session.session_id)) is None:
            return
        if (this := asyncio.current_task()) is not None:
            self._transferring.add(this)
        await self._hand_over.carry_out(session, target, even_while_sending=True)

    async def _find_target(self, session_id: str) -> Node | None:
        """Return a node that expects the session now; None if there is none."""
        refused: set[UUID] = set()
        for _ in range(TARGET_ATTEMPTS):
            left = [one for one in self._candidates if one.node.incarnation not in refused]
            target = placement.select_target(left, self._reserved)
            seconds = self._deadline - time.monotonic()
            if target is None or seconds <= 0:
                return None
            self._reserved[target.incarnation] += 1
            try:
                await self._hand_over.prepare(target, session_id, seconds)
            except Unavailable as error:
                log.info("A node did not take a session.", session_id=session_id, target=target.name, cause=str(error))
                self._reserved[target.incarnation] -= 1
                refused.add(target.incarnation)
            else:
                return target
        return None


class HandoverTarget:
    """Takes sessions that other nodes hand over."""

    def __init__(self, gate: PermitSource, owned: LocalSessions) -> None:
        self._gate = gate
        self._owned = owned
        self._expected: dict[str, tuple[StartPermit, float]] = {}
        self._acquiring = 0
        self._is_draining = False

    def drain(self) -> None:
        """Refuse all further sessions."""
        self._is_draining = True

    async def prepare(self, session_id: str) -> None:
        """Hold a start permit for the session for PERMIT_TTL_S. Raises Unavailable."""
        self._drop_expired()
        self._refuse_if_draining()
        if self._owned.running(session_id) is not None:
            # This node lost the session and its old process may still live, so nothing could start under the lease.
            raise Unavailable("this node is not done with the session itself", reason="NODE_NOT_DONE")
        # A repeated request, whose first answer was lost, needs no further room.
        others = len(self._expected.keys() - {session_id})
        if self._owned.room - others - self._acquiring <= 0:
            raise Unavailable("this node takes no more sessions", reason="NODE_FULL")
        self._acquiring += 1
        try:
            permit = (await self._gate.acquire(Lane.RESTART, 1))[0]
        finally:
            self._acquiring -= 1
        if self._is_draining:
            permit.give_back()
        self._refuse_if_draining()
        if (before := self._expected.pop(session_id, None)) is not None:
            before[0].give_back()
        self._expected[session_id] = permit, time.monotonic()

    async def accept(self, session_id: str) -> None:
        """Start a session whose lease is this node's; return when it is connected, or after CONNECT_WAIT_S.

        If it was not expected, or its permit has expired, it waits for a start permit like any other.
        """
        permit, _ = self._expected.pop(session_id, (None, 0.0))
        self._owned.take(session_id, permit)
        until = time.monotonic() + CONNECT_WAIT_S
        while self._is_connecting(session_id) and time.monotonic() < until:  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(CONNECT_POLL_S)

    def _is_connecting(self, session_id: str) -> bool:
        return self._owned.running(session_id) is not None and not self._owned.is_connected(session_id)

    def _refuse_if_draining(self) -> None:
        if self._is_draining:
            raise Unavailable("this node is stopping", reason="NODE_DRAINING")

    def _drop_expired(self) -> None:
        for session_id, (permit, since) in list(self._expected.items()):
            if time.monotonic() - since > PERMIT_TTL_S:
                permit.give_back()
                del self._expected[session_id]
