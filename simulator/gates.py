"""Places where a test can make the simulator wait."""

from __future__ import annotations

import asyncio
from enum import StrEnum


class Step(StrEnum):
    """The places."""

    PAIR_SUCCESS = "pair-success"  #: the phone has scanned, the client has not heard of it yet
    RESTART = "515"  #: the client has signed, it has not been told to reconnect yet
    LOGIN = "login"  #: a device has shaken hands, it has not been let in or refused yet


class Gates:
    """Steps that are held, and how many wait there."""

    def __init__(self) -> None:
        self._open: dict[Step, asyncio.Event] = {step: asyncio.Event() for step in Step}
        for gate in self._open.values():
            gate.set()
        self.waiting: dict[Step, int] = dict.fromkeys(Step, 0)

    def hold(self, step: Step) -> None:
        """Make everyone who comes to this step wait."""
        self._open[step].clear()

    def release(self, step: Step) -> None:
        """Let everyone go on."""
        self._open[step].set()

    def is_held(self, step: Step) -> bool:
        """Whether this step is held."""
        return not self._open[step].is_set()

    async def passed(self, step: Step) -> None:
        """Return when this step is not, or no longer, held."""
        self.waiting[step] += 1
        try:
            await self._open[step].wait()
        finally:
            self.waiting[step] -= 1
