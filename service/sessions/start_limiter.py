"""Where starts of session processes wait for their turn: service.domain.start_scheduler on an event loop."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.domain.start_scheduler import Lane, PermitRequest, StartScheduler

JITTER = 0.5
"""A turn that was waited for comes late by up to this part of the time between two: nodes do not march in step."""
SHORTEST_TIMER_S = 0.001
"""Seconds; a timer that fires a hair too early must not become a busy loop."""


class GrantedPermit:
    """ports.Turn at this gate."""

    def __init__(self, gate: "StartLimiter", number: int, lane: Lane) -> None:
        self.lane = lane
        self._gate = gate
        self._number = number

    def use(self) -> bool:
        """The process is started now; False if the turn was held for too long."""
        return self._gate.settle(self._number, was_used=True)

    def give_back(self) -> None:
        """No process is started."""
        self._gate.settle(self._number, was_used=False)


class PermitWaiter:
    """A place in the queue."""

    def __init__(self, gate: "StartLimiter", waiting: PermitRequest) -> None:
        self.waiting = waiting
        self.decided = asyncio.Event()
        """A turn was granted, or there is nothing to wait for any more."""
        self._gate = gate

    @property
    def is_granted(self) -> bool:
        """There is a turn to take."""
        return bool(self.waiting.turns)

    async def turns(self) -> list[GrantedPermit]:
        """Wait for the first turn, and take all that are granted by then; none if the place was left meanwhile."""
        await self.decided.wait()
        return self._gate.take(self)

    def leave(self) -> None:
        """Wait no longer: `turns` returns at once, with what was granted already."""
        self._gate.leave(self)


class StartLimiter:
    """The one gate of a node that every start of a session process goes through."""

    def __init__(self, rate: float, *, chance: Callable[[], float] = random.random) -> None:
        """`rate`: starts a second. `chance` gives numbers from 0 to 1, for the jitter."""
        self._pace = StartScheduler(rate, time.monotonic())
        self._chance = chance
        self._tickets: dict[PermitRequest, PermitWaiter] = {}
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def join(self, lane: Lane, wants: int = 1, active_at: float = 0.0) -> Iterator[PermitWaiter]:
        """A place in a lane for so many turns, while the context lasts; what is not taken by then is given back.

        `active_at`: see domain.pace.PermitRequest.
        """
        waiting = self._pace.join(lane, wants, active_at)
        ticket = self._tickets[waiting] = PermitWaiter(self, waiting)
        self._grant()
        try:
            yield ticket
        finally:
            for turn in self.take(ticket):
                turn.give_back()

    async def turns(self, lane: Lane, wants: int) -> list[GrantedPermit]:
        """At least one turn, and at most so many."""
        with self.join(lane, wants) as ticket:
            return await ticket.turns()

    def leave(self, ticket: PermitWaiter) -> None:
        """See PermitWaiter."""
        self._pace.leave(ticket.waiting)
        self._tickets.pop(ticket.waiting, None)
        ticket.decided.set()
        self._grant()

    def take(self, ticket: PermitWaiter) -> list[GrantedPermit]:
        """What was granted to the ticket, once; it waits for no more."""
        numbers, ticket.waiting.turns = ticket.waiting.turns, []
        self.leave(ticket)
        return [GrantedPermit(self, number, ticket.waiting.lane) for number in numbers]

    def settle(self, number: int, *, was_used: bool) -> bool:
        """See ports.Turn."""
        act = self._pace.use if was_used else self._pace.give_back
        was_held = act(number, time.monotonic())
        self._grant()
        return was_held

    def _grant(self) -> None:
        """Grant what can be granted now, and come again when more can be."""
        while (waiting := self._pace.grant(time.monotonic())) is not None:
            self._tickets[waiting].decided.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait = self._pace.wait(time.monotonic())
        if wait is not None:
            late = self._chance() * JITTER / self._pace.rate
            self._timer = asyncio.get_running_loop().call_later(max(SHORTEST_TIMER_S, wait + late), self._grant)
