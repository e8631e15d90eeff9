"""Brings what is owned here into line with what is wanted: claims what is due and nobody's, stops what is unwanted.

A turn to start a process is taken first, and then a session is claimed: what cannot be started here now is left to a
node that can. Which ones are this node's to claim is service.domain.placement. Pairings wait in a lane of their own.
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
from service.domain.outage import OutageDetector
from service.domain.start_scheduler import Lane
from service.domain.survey import Survey
from service.ports import Directory, PermitSource, StartPermit, Wakeups

log = structlog.get_logger(__name__)

RECONCILE_INTERVAL_S = 1.0
"""Seconds between two looks without any hint."""
DATABASE_RETRY_S = 0.5
"""Seconds between two looks while the database is away."""
RELEASE = 2.0
"""Seconds for the last word to the database; without it the leases run out by themselves."""
FAULT_PAUSE = 5.0
"""Seconds before a session whose runner failed is taken up anew: it would fail again, and use up the pace of all."""
GATHER = 0.02
"""Seconds in which hints that come together are gathered."""
OTHERS_POLL_S = 0.1
"""Seconds between two looks while other nodes are waited for."""


class SessionRunner(Protocol):
    """A claimed session's runner (sessions.runner.Runner)."""

    @property
    def session_id(self) -> str:
        """Of the session."""

    @property
    def connection(self) -> object | None:
        """Set while this node may act for it and WhatsApp has let it in."""

    async def run(self) -> None:
        """Until it is given up."""

    def unwanted(self) -> None:
        """Nobody wants it connected any more."""

    def hand_over_or_stop(self) -> None:
        """The node stops."""


class SessionRegistry(Protocol):
    """The sessions owned here (sessions.roster.Roster)."""

    def __len__(self) -> int: ...

    def add(self, session_id: str, turn: StartPermit | None) -> SessionRunner:
        """A runner for a session just claimed, and the turn that was taken for it, if there is one."""

    def get(self, session_id: str) -> SessionRunner | None:
        """The runner of a session, if it is owned here."""

    def remove(self, session_id: str) -> None:
        """Its runner is done."""

    def all(self) -> Sequence[SessionRunner]:
        """All runners."""


class PendingClaims:
    """How many sessions are to be claimed here in one lane, as far as is known."""

    def __init__(self) -> None:
        self._count = 0
        self._some = asyncio.Event()

    def set_count(self, count: int) -> None:
        """So many are this node's to claim."""
        self._count = count
        if count > 0:
            self._some.set()
        else:
            self._some.clear()

    async def some(self) -> int:
        """Wait until there are some; how many."""
        await self._some.wait()
        return self._count


class Reconciler:
    """Claims, and has every claimed session run by a task of its own."""

    def __init__(
        self,
        directory: Directory,
        holdings: SessionRegistry,
        wakeups: Wakeups,
        gate: PermitSource,
        outages: OutageDetector,
        *,
        incarnation: UUID,
        node: str,
        ttl: float,
        limit: int,
    ) -> None:
        """`outages`: what the renewals say of them. `limit`: most sessions to own."""
        self._directory = directory
        self._holdings = holdings
        self._wakeups = wakeups
        self._gate = gate
        self._outages = outages
        self._incarnation = incarnation
        self._node = node
        self._ttl = ttl
        self._limit = limit
        self._due = {Lane.PAIRING: PendingClaims(), Lane.CLAIMED: PendingClaims()}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._every: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()
        self._has_seen = False
        self._was_full = False
        self.survey = Survey()
        """What the last look saw."""

    async def run(self) -> None:
        """For ever: look, then wait for a hint, for the next session to become due, or for the poll."""
        async with asyncio.TaskGroup() as group:
            for lane in self._due:
                group.create_task(self._claim_loop(lane), name=f"claim-{lane.value}")
            with self._wakeups.listen_to_work() as hints:
                while True:
                    await hints.wait(await self.look())
                    await asyncio.sleep(GATHER)

    async def look(self) -> float:
        """One round. Returns the seconds until the next one makes sense without a hint."""
        try:
            for session_id in await self._directory.unwanted(self._incarnation):
                if (runner := self._holdings.get(session_id)) is not None:
                    runner.unwanted()
            patience = self._outages.patience_s(time.monotonic())
            self.survey = survey = await self._directory.survey(self._incarnation, patience)
            is_early = await self._is_too_early_to_claim()
        except Unavailable as error:
            self._has_seen = False
            log.warning("Cannot look for sessions to run.", cause=error.message)
            return DATABASE_RETRY_S
        self._has_seen = True
        self._due[Lane.PAIRING].set_count(0 if is_early else self._ours(survey, survey.pairings, survey.late_pairings))
        self._due[Lane.CLAIMED].set_count(
            0 if is_early else self._ours(survey, survey.due, survey.late) + survey.leftovers
        )
        self._say_if_full(survey.due)
        if is_early:
            return OTHERS_POLL_S
        return RECONCILE_INTERVAL_S if survey.next_due is None else max(0.0, min(RECONCILE_INTERVAL_S, survey.next_due))

    async def _is_too_early_to_claim(self) -> bool:
        """After an outage this node waits until others announce themselves again: alone it would claim their share."""
        now = time.monotonic()
        if self._outages.is_going_on(now):
            return True
        seconds = self._outages.others_awaited_for(now)
        return seconds is not None and await self._directory.others_are_awaited(seconds)

    def _ours(self, survey: Survey, due: int, late: int) -> int:
        """How many of a queue are this node's to claim. What is left to others must cost no turns."""
        mine = sum(place <= due for place in placement.claim_slots(survey.candidates, self._incarnation, due))
        # Some that are late may have places of ours, too; turns that find nothing are given back.
        return min(due, mine + late)

    def _say_if_full(self, due: int) -> None:
        """Once, until there is room again: sessions are due, and this node takes none of them."""
        is_full = self.room <= 0 and due > 0
        if is_full and not self._was_full:
            log.info("Sessions wait, and this node takes no more (ZAP_MAX_SESSIONS).", sessions=due)
        self._was_full = is_full

    async def drain(self, grace: float) -> None:
        """Every session steps down; returns when all have been released or lost. `run` must have ended.

        Those that have not after `grace` seconds are cut short: their processes are killed, their leases run out.
        """
        self._draining.set()
        for runner in self._holdings.all():
            runner.hand_over_or_stop()
        # Also those that another one of their session waits for.
        tasks = set(self._every)
        _, late = await asyncio.wait(tasks, timeout=grace) if tasks else ((), ())
        if late:
            log.warning("Sessions did not step down in time; their processes are killed.", sessions=len(late))
            await self.cancel_all()
        try:
            # A claim whose answer never reached us is ours as well, and nobody runs it.
            async with asyncio.timeout(RELEASE):
                await self._directory.release_all(self._incarnation)
        except (Unavailable, TimeoutError) as error:
            log.warning("Leases are left to run out.", cause=str(error) or "the database is silent")

    async def cancel_all(self) -> None:
        """Have every process killed now, and return when all are dead. Leases that cannot be released run out."""
        self._draining.set()
        tasks = set(self._every)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _claim_loop(self, lane: Lane) -> None:
        due = self._due[lane]
        while True:
            wants = min(await due.some(), self.room)
            turns = await self._gate.turns(lane, wants) if wants > 0 else ()
            # What a look finds from here on is news: it may have seen what the claim does not see.
            due.set_count(0)
            if not turns:
                # No room. The next look says whether there still is something.
                continue
            try:
                await self._claim(lane, turns)
            except Unavailable as error:
                log.warning("Cannot claim sessions.", cause=error.message)
            else:
                # Others claim too: only a look knows how many are left.
                self._wakeups.reconcile()

    async def _claim(self, lane: Lane, turns: Sequence[StartPermit]) -> None:
        """Claim a session for each turn, if there are so many, and have them run."""
        claimed: Sequence[str] = ()
        try:
            # The other lane may have filled the node meanwhile.
            if (most := min(len(turns), self.room)) > 0:
                claimed = await self._directory.claim(
                    self._incarnation,
                    self._node,
                    self._ttl,
                    most,
                    pairings=lane is Lane.PAIRING,
                    patience=self._outages.patience_s(time.monotonic()),
                )
        finally:
            for turn in turns[len(claimed) :]:
                turn.give_back()
        for session_id, turn in zip(claimed, turns, strict=False):
            self._begin(session_id, turn)

    def take(self, session_id: str, turn: StartPermit | None) -> None:
        """Run a session whose lease another node has made ours. Nothing happens if it runs already."""
        if self._draining.is_set() or self._holdings.get(session_id) is not None:
            if turn is not None:
                turn.give_back()
        else:
            self._begin(session_id, turn)

    def running(self, session_id: str) -> asyncio.Task[None] | None:
        """The task of a session that is owned here; it ends once the session is released, handed over or lost."""
        return self._tasks.get(session_id)

    def is_connected(self, session_id: str) -> bool:
        """A session is owned here, and connected."""
        runner = self._holdings.get(session_id)
        return runner is not None and runner.connection is not None

    def _begin(self, session_id: str, turn: StartPermit | None) -> None:
        # A session that was just released here can be claimed before its runner has quite ended.
        before = self._tasks.get(session_id)
        task = self._tasks[session_id] = asyncio.create_task(self._run(session_id, turn, before))
        self._every.add(task)
        task.add_done_callback(functools.partial(self._forget, session_id))

    @property
    def is_settled(self) -> bool:
        """As far as this node knows, no outage goes on, and no crowd of sessions is on its way back."""
        return self._has_seen and self.survey.away <= 1 and not self._outages.is_going_on(time.monotonic())

    @property
    def room(self) -> int:
        """How many sessions more this node takes."""
        return self._limit - len(self._tasks)

    async def _run(self, session_id: str, turn: StartPermit | None, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        if self._draining.is_set():
            if turn is not None:
                turn.give_back()
            return
        runner = self._holdings.add(session_id, turn)
        is_fault = False
        try:
            await runner.run()
        except Exception:
            log.exception("A session's runner failed; the session is taken up anew.", session_id=session_id)
            is_fault = True
        finally:
            # Whoever calls for it in the pause is to find its next owner.
            self._holdings.remove(session_id)
            self._wakeups.reconcile()
        if is_fault:
            with suppress(TimeoutError):
                async with asyncio.timeout(FAULT_PAUSE):
                    await self._draining.wait()

    def _forget(self, session_id: str, task: asyncio.Task[None]) -> None:
        self._every.discard(task)
        if self._tasks.get(session_id) is task:
            del self._tasks[session_id]
