"""The turn on which a session's next process starts: waited for, held, and used or given back."""

from service.domain.start_scheduler import Lane
from service.ports import StartPermit
from service.sessions.start_limiter import PermitWaiter, StartLimiter


class StartSlot:
    """Of one session. Its runner asks, one thing after another; `disturb` may come at any time."""

    def __init__(self, gate: StartLimiter, turn: StartPermit | None = None) -> None:
        """`turn`: one that was taken already, with the claim."""
        self._gate = gate
        self._turn = turn
        self._ticket: PermitWaiter | None = None

    @property
    def is_waiting(self) -> bool:
        """It waits for its turn."""
        return self._ticket is not None

    @property
    def has_turn(self) -> bool:
        """There is a turn to use."""
        return self._turn is not None

    async def wait(self, lane: Lane, active_at: float, *, skip_wait: bool = False) -> None:
        """Until there is a turn, or it is disturbed: then there may be none. Hurried, it does not wait at all."""
        if self._turn is not None:
            return
        with self._gate.join(lane, active_at=active_at) as ticket:
            if not ticket.is_granted and skip_wait:
                return
            self._ticket = ticket
            try:
                self._turn = next(iter(await ticket.turns()), None)
            finally:
                self._ticket = None

    def disturb(self) -> None:
        """Whoever waits looks again now."""
        if self._ticket is not None:
            self._ticket.leave()

    def use(self) -> StartPermit | None:
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
