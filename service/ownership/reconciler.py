"""Claims due sessions that have no owner, and stops sessions whose desired state is inactive.

A start permit is taken before a session is claimed, so that a session that cannot start here now is left to a node
where it can. service.domain.placement says which sessions this node claims. Pairings wait in a separate lane.
"""

import asyncio
import functools
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol
from uuid import UUID

import structlog

from service.domain import placement
from service.domain.errors import Unavailable
from service.domain.fleet_counts import FleetCounts
from service.domain.outage import OutageDetector
from service.domain.start_scheduler import Lane
from service.ports.bus import Wakeups
from service.ports.leases import Directory
from service.ports.processes import PermitSource, StartPermit

log = structlog.get_logger(__name__)

RECONCILE_INTERVAL_S = 1.0
"""Seconds between two rounds without a hint."""
DATABASE_RETRY_S = 0.5
"""Seconds between two rounds while the database is unavailable."""
RELEASE_TIMEOUT_S = 2.0
"""Seconds to release all leases when the node stops; leases that are not released expire."""
FAULT_PAUSE_S = 5.0
"""Seconds before a session whose runner failed is run again; without a pause its retries would use up the permits."""
HINT_GATHER_S = 0.02
"""Seconds in which hints are gathered into one round."""
OTHERS_POLL_S = 0.1
"""Seconds between two rounds while this node waits for other nodes."""


class SessionRunner(Protocol):
    """The runner of a claimed session (sessions.runner.Runner)."""

    @property
    def session_id(self) -> str:
        """Return the session's id."""

    @property
    def connection(self) -> object | None:
        """Return the connection while this node holds the lease and WhatsApp accepts the session; otherwise None."""

    async def run(self) -> None:
        """Run the session until it is released, handed over or lost."""

    def unwanted(self) -> None:
        """Stop: the session's process must end."""

    def hand_over_or_stop(self) -> None:
        """Stop: the node stops."""


class SessionRegistry(Protocol):
    """The runners of the sessions owned here (sessions.registry.RunnerRegistry)."""

    def __len__(self) -> int: ...

    def add(self, session_id: str, permit: StartPermit | None) -> SessionRunner:
        """Return a new runner for a session; `permit` is its start permit, if one was taken."""

    def get(self, session_id: str) -> SessionRunner | None:
        """Return the runner of a session; None if it is not owned here."""

    def remove(self, session_id: str) -> None:
        """Remove a runner that has ended."""

    def all(self) -> Sequence[SessionRunner]:
        """Return all runners."""


class PendingClaims:
    """Holds the known number of sessions in one lane that this node is to claim."""

    def __init__(self) -> None:
        self._count = 0
        self._nonempty = asyncio.Event()

    def set_count(self, count: int) -> None:
        """Replace the number."""
        self._count = count
        if count > 0:
            self._nonempty.set()
        else:
            self._nonempty.clear()

    async def wait_nonempty(self) -> int:
        """Wait until the number is above 0, and return it."""
        await self._nonempty.wait()
        return self._count


class Reconciler:
    """Claims sessions, and runs a task for each."""

    def __init__(
        self,
        directory: Directory,
        registry: SessionRegistry,
        wakeups: Wakeups,
        gate: PermitSource,
        outages: OutageDetector,
        *,
        incarnation: UUID,
        node: str,
        ttl: float,
        limit: int,
    ) -> None:
        """`outages` observes this node's renewals; `limit` is the most sessions to own."""
        self._directory = directory
        self._registry = registry
        self._wakeups = wakeups
        self._gate = gate
        self._outages = outages
        self._incarnation = incarnation
        self._node = node
        self._ttl = ttl
        self._limit = limit
        self._due = {Lane.PAIRING: PendingClaims(), Lane.CLAIM: PendingClaims()}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._all_tasks: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()
        self._has_counts = False
        self._was_full = False
        self.counts = FleetCounts()
        """The result of the last round."""

    async def run(self) -> None:
        """Repeat rounds forever: at each hint, when the next session becomes due, and every RECONCILE_INTERVAL_S."""
        async with asyncio.TaskGroup() as group:
            for lane in self._due:
                group.create_task(self._claim_loop(lane), name=f"claim-{lane.value}")
            with self._wakeups.listen_to_work() as hints:
                while True:
                    await hints.wait(await self.look())
                    await asyncio.sleep(HINT_GATHER_S)

    async def look(self) -> float:
        """Run one round, and return the seconds to wait for a hint before the next one."""
        try:
            for session_id in await self._directory.sessions_to_stop(self._incarnation):
                if (runner := self._registry.get(session_id)) is not None:
                    runner.unwanted()
            grace_s = self._outages.claim_grace_s(time.monotonic())
            self.counts = counts = await self._directory.fleet_counts(self._incarnation, grace_s)
            is_early = await self._is_too_early_to_claim()
        except Unavailable as error:
            self._has_counts = False
            log.warning("Cannot look for sessions to run; retrying.", cause=error.message)
            return DATABASE_RETRY_S
        self._has_counts = True
        self._due[Lane.PAIRING].set_count(0 if is_early else self._mine(counts, counts.pairings, counts.late_pairings))
        self._due[Lane.CLAIM].set_count(
            0 if is_early else self._mine(counts, counts.due, counts.late) + counts.leftovers
        )
        self._log_if_full(counts.due)
        if is_early:
            return OTHERS_POLL_S
        return RECONCILE_INTERVAL_S if counts.next_due is None else max(0.0, min(RECONCILE_INTERVAL_S, counts.next_due))

    async def _is_too_early_to_claim(self) -> bool:
        """Return whether there is an outage, or other nodes are awaited after one so that they claim their share."""
        now = time.monotonic()
        if self._outages.is_going_on(now):
            return True
        seconds = self._outages.others_awaited_for(now)
        return seconds is not None and await self._directory.others_are_awaited(seconds)

    def _mine(self, counts: FleetCounts, due: int, late: int) -> int:
        """Return how many sessions of a queue this node may claim, so that other nodes' sessions cost no permits."""
        mine = sum(slot <= due for slot in placement.claim_slots(counts.candidates, self._incarnation, due))
        # A late session may be counted twice if its slot is this node's. A permit without a session is given back.
        return min(due, mine + late)

    def _log_if_full(self, due: int) -> None:
        """Log once that sessions are due and this node is full; again only after it had room."""
        is_full = self.room <= 0 and due > 0
        if is_full and not self._was_full:
            log.info("Sessions wait, and this node takes no more (ZAP_MAX_SESSIONS).", sessions=due)
        self._was_full = is_full

    async def drain(self, grace: float) -> None:
        """Stop every session; return when all have been released, handed over or lost. `run` must have ended.

        After `grace` seconds the processes that are left are killed, and leases that cannot be released expire.
        """
        self._draining.set()
        for runner in self._registry.all():
            runner.hand_over_or_stop()
        # Includes older tasks that the newest task of their session waits for.
        tasks = set(self._all_tasks)
        _, late = await asyncio.wait(tasks, timeout=grace) if tasks else ((), ())
        if late:
            log.warning("Sessions did not stop in time; killing their processes.", sessions=len(late))
            await self.cancel_all()
        try:
            # Includes leases whose claim succeeded without an answer to this node; no session runs on them.
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._directory.release_all(self._incarnation)
        except (Unavailable, TimeoutError) as error:
            log.warning("Leases could not be released; they expire.", cause=str(error) or "the database is silent")

    async def cancel_all(self) -> None:
        """Kill every process, and return when all are dead. Leases that cannot be released expire."""
        self._draining.set()
        tasks = set(self._all_tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _claim_loop(self, lane: Lane) -> None:
        pending = self._due[lane]
        while True:
            wants = min(await pending.wait_nonempty(), self.room)
            permits = await self._gate.acquire(lane, wants) if wants > 0 else ()
            # Reset before the claim: a round that runs meanwhile may count sessions that this claim does not see.
            pending.set_count(0)
            if not permits:
                # The node is full. The next round counts again.
                continue
            try:
                await self._claim(lane, permits)
            except Unavailable as error:
                log.warning("Cannot claim sessions; retrying.", cause=error.message)
            else:
                # Other nodes claim too, so only a new round knows how many are left.
                self._wakeups.notify_work()

    async def _claim(self, lane: Lane, permits: Sequence[StartPermit]) -> None:
        """Claim at most one session for each permit, and run those that were claimed."""
        claimed: Sequence[str] = ()
        try:
            # The other lane may have filled the node meanwhile.
            if (most := min(len(permits), self.room)) > 0:
                claimed = await self._directory.claim(
                    self._incarnation,
                    self._node,
                    self._ttl,
                    most,
                    pairings=lane is Lane.PAIRING,
                    grace_s=self._outages.claim_grace_s(time.monotonic()),
                )
        finally:
            for permit in permits[len(claimed) :]:
                permit.give_back()
        for session_id, permit in zip(claimed, permits, strict=False):
            self._start_runner(session_id, permit)

    def take(self, session_id: str, permit: StartPermit | None) -> None:
        """Run a session whose lease another node has handed over. Does nothing if it runs already."""
        if self._draining.is_set() or self._registry.get(session_id) is not None:
            if permit is not None:
                permit.give_back()
        else:
            self._start_runner(session_id, permit)

    def running(self, session_id: str) -> asyncio.Task[None] | None:
        """Return the task of a session that is owned here; it ends when the session is released or lost."""
        return self._tasks.get(session_id)

    def is_connected(self, session_id: str) -> bool:
        """Return whether a session is owned here and connected."""
        runner = self._registry.get(session_id)
        return runner is not None and runner.connection is not None

    def _start_runner(self, session_id: str, permit: StartPermit | None) -> None:
        # A session that was just released here can be claimed again before its old runner has ended.
        before = self._tasks.get(session_id)
        task = self._tasks[session_id] = asyncio.create_task(self._run(session_id, permit, before))
        self._all_tasks.add(task)
        task.add_done_callback(functools.partial(self._forget, session_id))

    @property
    def is_settled(self) -> bool:
        """Return whether, as far as this node knows, there is no outage and at most one session is away."""
        return self._has_counts and self.counts.away <= 1 and not self._outages.is_going_on(time.monotonic())

    @property
    def room(self) -> int:
        """Return how many more sessions this node takes."""
        return self._limit - len(self._tasks)

    async def _run(self, session_id: str, permit: StartPermit | None, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        if self._draining.is_set():
            if permit is not None:
                permit.give_back()
            return
        runner = self._registry.add(session_id, permit)
        is_fault = False
        try:
            await runner.run()
        except Exception:
            log.exception("A session's runner failed; the session will be run again.", session_id=session_id)
            is_fault = True
        finally:
            # Before the pause, so that calls during it are sent to the next owner.
            self._registry.remove(session_id)
            self._wakeups.notify_work()
        if is_fault:
            with suppress(TimeoutError):
                async with asyncio.timeout(FAULT_PAUSE_S):
                    await self._draining.wait()

    def _forget(self, session_id: str, task: asyncio.Task[None]) -> None:
        self._all_tasks.discard(task)
        if self._tasks.get(session_id) is task:
            del self._tasks[session_id]
