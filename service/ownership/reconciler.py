"""Brings what is owned here into line with what is wanted: claims what is due and nobody's, stops what is unwanted."""

import asyncio
import functools
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol
from uuid import UUID

import structlog

from service.domain.errors import Unavailable
from service.ports import LeaseStore, Wakeups

log = structlog.get_logger(__name__)

POLL = 1.0
"""Seconds between two looks without any hint."""
RELEASE = 2.0
"""Seconds for the last word to the database; without it the leases run out by themselves."""
FAULT_PAUSE = 5.0
"""Seconds before a session whose runner failed is taken up anew: it would fail again, and use up the pace of all."""
GATHER = 0.02
"""Seconds in which hints that come together are gathered."""


class Runs(Protocol):
    """A claimed session's runner (sessions.runner.Runner)."""

    @property
    def session_id(self) -> str:
        """Of the session."""

    async def run(self) -> None:
        """Until it is given up."""

    def unwanted(self) -> None:
        """Nobody wants it connected any more."""

    def step_down(self) -> None:
        """The node stops."""


class Holdings(Protocol):
    """The sessions owned here (sessions.roster.Roster)."""

    def __len__(self) -> int: ...

    def add(self, session_id: str) -> Runs:
        """A runner for a session just claimed."""

    def get(self, session_id: str) -> Runs | None:
        """The runner of a session, if it is owned here."""

    def remove(self, session_id: str) -> None:
        """Its runner is done."""

    def all(self) -> Sequence[Runs]:
        """All runners."""


class Pace:
    """A token bucket: at most `rate` claims a second, and at most one second's worth at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = max(1.0, rate)
        self._filled_at = time.monotonic()

    def available(self) -> int:
        """How many claims are allowed now."""
        now = time.monotonic()
        self._tokens = min(max(1.0, self._rate), self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        return int(self._tokens)

    def spend(self, claims: int) -> None:
        """So many were made."""
        self._tokens -= claims


class Reconciler:
    """Claims, and has every claimed session run by a task of its own."""

    def __init__(
        self,
        leases: LeaseStore,
        holdings: Holdings,
        wakeups: Wakeups,
        *,
        incarnation: UUID,
        node: str,
        ttl: float,
        limit: int,
        rate: float,
    ) -> None:
        """`limit`: most sessions to own; `rate`: most claims per second."""
        self._leases = leases
        self._holdings = holdings
        self._wakeups = wakeups
        self._incarnation = incarnation
        self._node = node
        self._ttl = ttl
        self._limit = limit
        self._pace = Pace(rate)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._every: set[asyncio.Task[None]] = set()
        self._draining = asyncio.Event()

    async def run(self) -> None:
        """For ever: look, then wait for a hint, for the next session to become due, or for the poll."""
        with self._wakeups.listen_all() as hints:
            while True:
                await hints.wait(await self.look())
                await asyncio.sleep(GATHER)

    async def look(self) -> float:
        """One round. Returns the seconds until the next one makes sense without a hint."""
        try:
            for session_id in await self._leases.unwanted(self._incarnation):
                if (runner := self._holdings.get(session_id)) is not None:
                    runner.unwanted()
            await self._claim()
            due = await self._leases.next_due(self._incarnation)
        except Unavailable as error:
            log.warning("Cannot look for sessions to run.", cause=error.message)
            return POLL
        return POLL if due is None else max(0.0, min(POLL, due))

    async def drain(self, grace: float) -> None:
        """Every session steps down; returns when all have been released or lost. `run` must have ended.

        Those that have not after `grace` seconds are cut short: their processes are killed, their leases run out.
        """
        self._draining.set()
        for runner in self._holdings.all():
            runner.step_down()
        # Also those that another one of their session waits for.
        tasks = set(self._every)
        _, late = await asyncio.wait(tasks, timeout=grace) if tasks else ((), ())
        for task in late:
            task.cancel()
        if late:
            log.warning("Sessions did not step down in time; their processes are killed.", sessions=len(late))
            await asyncio.wait(late)
        try:
            # A claim whose answer never reached us is ours as well, and nobody runs it.
            async with asyncio.timeout(RELEASE):
                await self._leases.release_all(self._incarnation)
        except (Unavailable, TimeoutError) as error:
            log.warning("Leases are left to run out.", cause=str(error) or "the database is silent")

    async def _claim(self) -> None:
        free = min(self._limit - len(self._tasks), self._pace.available())
        if free <= 0:
            return
        claimed = await self._leases.claim(self._incarnation, self._node, self._ttl, free)
        self._pace.spend(len(claimed))
        for session_id in claimed:
            # A session that was just released here can be claimed before its runner has quite ended.
            before = self._tasks.get(session_id)
            task = self._tasks[session_id] = asyncio.create_task(self._run(session_id, before))
            self._every.add(task)
            task.add_done_callback(functools.partial(self._forget, session_id))

    async def _run(self, session_id: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        if self._draining.is_set():
            return
        runner = self._holdings.add(session_id)
        try:
            await runner.run()
        except Exception:
            log.exception("A session's runner failed; the session is taken up anew.", session_id=session_id)
            with suppress(TimeoutError):
                async with asyncio.timeout(FAULT_PAUSE):
                    await self._draining.wait()
        finally:
            self._holdings.remove(session_id)
            self._wakeups.wake(session_id)

    def _forget(self, session_id: str, task: asyncio.Task[None]) -> None:
        self._every.discard(task)
        if self._tasks.get(session_id) is task:
            del self._tasks[session_id]
