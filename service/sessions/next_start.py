"""The turn on which a session's next process starts: waited for, held, and used or given back."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from service.domain.pace import Lane
from service.ports import Turn
from service.sessions.start_gate import StartGate, Ticket

WORTH_TELLING = 0.5
"""Seconds that a session waits for its turn before anybody is told."""

Tell = Callable[[float], Coroutine[Any, Any, None]]
"""Lets callers know that the session waits, and for how many seconds about."""


class NextStart:
    """Of one session. Its runner asks, one thing after another; `disturb` may come at any time."""

    def __init__(self, gate: StartGate, tell: Tell, turn: Turn | None = None) -> None:
        """`turn`: one that was taken already, with the claim."""
        self._gate = gate
        self._tell = tell
        self._turn = turn
        self._ticket: Ticket | None = None

    @property
    def is_waiting(self) -> bool:
        """It waits for its turn."""
        return self._ticket is not None

    @property
    def has_turn(self) -> bool:
        """There is a turn to use."""
        return self._turn is not None

    async def wait(self, lane: Lane, active_at: float, *, is_hurried: bool = False, tells: bool = True) -> None:
        """Until there is a turn, or it is disturbed: then there may be none. Hurried, it does not wait at all.

        `tells`: callers are let know. Only before an epoch: its beginning is what says that the wait is over.
        """
        if self._turn is not None:
            return
        with self._gate.join(lane, active_at=active_at) as ticket:
            if not ticket.is_granted and is_hurried:
                return
            self._ticket = ticket
            telling: asyncio.Future[None] | None = None
            if tells and not ticket.is_granted and (seconds := ticket.seconds_left) >= WORTH_TELLING:
                # Beside it: a database that is silent must hold up neither the turn nor whoever disturbs.
                telling = asyncio.ensure_future(self._tell(seconds))
            try:
                self._turn = next(iter(await ticket.turns()), None)
            finally:
                self._ticket = None
                if telling is not None:
                    telling.cancel()

    def disturb(self) -> None:
        """Whoever waits looks again now."""
        if self._ticket is not None:
            self._ticket.leave()

    def use(self) -> Turn | None:
        """The turn, and a process must be started on it now; None if it was held for too long: wait for another one.

        Whatever held it up may have held up others, and they must not all start at once.
        """
        turn, self._turn = self._turn, None
        return turn if turn is not None and turn.use() else None

    def give_back(self) -> None:
        """No process is started now: the turn, if there is one, is somebody else's."""
        if self._turn is not None:
            self._turn.give_back()
            self._turn = None
