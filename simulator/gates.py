"""Makes the simulator wait at steps that a test holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from enum import StrEnum

_CHECK_INTERVAL_S = 0.02
"""Seconds between two looks whether a client that is held is gone."""


class Step(StrEnum):
    """The steps that can be held."""

    PAIR_SUCCESS = "pair-success"  #: the phone has scanned, and the client has not been notified yet
    RESTART = "515"  #: the client has signed, and has not been asked to reconnect yet
    LOGIN = "login"  #: a device has finished its handshake, and its login is not answered yet


class Gates:
    """The held steps, with the number of clients that wait at each."""

    def __init__(self) -> None:
        self._open: dict[Step, asyncio.Event] = {step: asyncio.Event() for step in Step}
        for gate in self._open.values():
            gate.set()
        self.waiting: dict[Step, int] = dict.fromkeys(Step, 0)

    def hold(self, step: Step) -> None:
        """Make all clients wait at this step."""
        self._open[step].clear()

    def release(self, step: Step) -> None:
        """Release all clients at this step."""
        self._open[step].set()

    def is_held(self, step: Step) -> bool:
        """Return whether this step is held."""
        return not self._open[step].is_set()

    async def passed(self, step: Step, is_over: Callable[[], bool] = lambda: False) -> None:
        """Wait until this step is not held, or `is_over` returns that its client is gone."""
        self.waiting[step] += 1
        try:
            while self.is_held(step) and not is_over():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._open[step].wait(), _CHECK_INTERVAL_S)
        finally:
            self.waiting[step] -= 1
