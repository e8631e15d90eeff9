"""Limits the rate at which a node starts session processes: service.domain.start_scheduler on an event loop."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.domain.start_scheduler import Lane, PermitRequest, StartScheduler

JITTER = 0.5
"""Largest delay of a permit that was waited for, as a part of the time between two: nodes must not start in step."""
SHORTEST_TIMER_S = 0.001
"""Seconds; keeps a timer that fires slightly too early from becoming a busy loop."""


class GrantedPermit:
    """Implements ports.processes.StartPermit."""

    def __init__(self, limiter: "StartLimiter", number: int, lane: Lane) -> None:
        self.lane = lane
        self._limiter = limiter
        self._number = number

    def use(self) -> bool:
        """Use the permit for a start; False if it was held for too long."""
        return self._limiter.settle(self._number, was_used=True)

    def give_back(self) -> None:
        """Return the permit without a start."""
        self._limiter.settle(self._number, was_used=False)


class PermitWaiter:
    """Waits in a lane for start permits."""

    def __init__(self, limiter: "StartLimiter", request: PermitRequest) -> None:
        self.request = request
        self.decided = asyncio.Event()
        """Set when a permit was granted, or there is nothing to wait for any more."""
        self._limiter = limiter

    @property
    def is_granted(self) -> bool:
        """Return whether there is a permit to take."""
        return bool(self.request.permits)

    async def permits(self) -> list[GrantedPermit]:
        """Wait for the first permit and take all that are granted by then; none after `leave`."""
        await self.decided.wait()
        return self._limiter.take(self)

    def leave(self) -> None:
        """Stop waiting: `permits` returns at once, with what was granted already."""
        self._limiter.leave(self)


class StartLimiter:
    """Grants the permits for all starts of session processes on a node."""

    def __init__(self, rate: float, *, chance: Callable[[], float] = random.random) -> None:
        """`rate`: starts a second. `chance` returns numbers from 0 to 1, for the jitter."""
        self._scheduler = StartScheduler(rate, time.monotonic())
        self._chance = chance
        self._waiters: dict[PermitRequest, PermitWaiter] = {}
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def join(self, lane: Lane, wants: int = 1, active_at: float = 0.0) -> Iterator[PermitWaiter]:
        """Wait in a lane for `wants` permits while the context lasts; give back what is not taken at its end.

        `active_at`: see PermitRequest.
        """
        request = self._scheduler.join(lane, wants, active_at)
        waiter = self._waiters[request] = PermitWaiter(self, request)
        self._grant()
        try:
            yield waiter
        finally:
            for permit in self.take(waiter):
                permit.give_back()

    async def acquire(self, lane: Lane, wants: int) -> list[GrantedPermit]:
        """Wait for at least one permit, and return at most `wants`."""
        with self.join(lane, wants) as waiter:
            return await waiter.permits()

    def leave(self, waiter: PermitWaiter) -> None:
        """Remove a waiter from its lane."""
        self._scheduler.leave(waiter.request)
        self._waiters.pop(waiter.request, None)
        waiter.decided.set()
        self._grant()

    def take(self, waiter: PermitWaiter) -> list[GrantedPermit]:
        """Remove a waiter from its lane and return the permits that were granted to it, once."""
        numbers, waiter.request.permits = waiter.request.permits, []
        self.leave(waiter)
        return [GrantedPermit(self, number, waiter.request.lane) for number in numbers]

    def settle(self, number: int, *, was_used: bool) -> bool:
        """Use a permit or give it back; False if it was used or given back before, or has expired."""
        act = self._scheduler.use if was_used else self._scheduler.give_back
        was_held = act(number, time.monotonic())
        self._grant()
        return was_held

    def _grant(self) -> None:
        """Grant what can be granted now, and set a timer for the next grant."""
        while (request := self._scheduler.grant(time.monotonic())) is not None:
            self._waiters[request].decided.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait = self._scheduler.wait(time.monotonic())
        if wait is not None:
            late = self._chance() * JITTER / self._scheduler.rate
            self._timer = asyncio.get_running_loop().call_later(max(SHORTEST_TIMER_S, wait + late), self._grant)
