"""Waits for, holds, and uses or gives back the start permit of one session's next process."""

from service.domain.start_scheduler import Lane
from service.ports.processes import StartPermit
from service.sessions.start_limiter import PermitWaiter, StartLimiter


class StartSlot:
    """Holds at most one start permit. Only one `wait` may run at a time; `wake` may be called at any time."""

    def __init__(self, limiter: StartLimiter, permit: StartPermit | None = None) -> None:
        """`permit`: one that was taken already, with the claim."""
        self._limiter = limiter
        self._permit = permit
        self._waiter: PermitWaiter | None = None

    @property
    def is_waiting(self) -> bool:
        """Return whether a permit is being waited for."""
        return self._waiter is not None

    @property
    def has_permit(self) -> bool:
        """Return whether there is a permit to use."""
        return self._permit is not None

    async def wait(self, lane: Lane, active_at: float, *, skip_wait: bool = False) -> None:
        """Wait until a permit is granted or `wake` is called. With `skip_wait`, take only a permit that is free now."""
        if self._permit is not None:
            return
        with self._limiter.join(lane, active_at=active_at) as waiter:
            if not waiter.is_granted and skip_wait:
                return
            self._waiter = waiter
            try:
                self._permit = next(iter(await waiter.permits()), None)
            finally:
                self._waiter = None

    def wake(self) -> None:
        """End a running `wait`."""
        if self._waiter is not None:
            self._waiter.leave()

    def use(self) -> StartPermit | None:
        """Return the permit, on which a process must start now; None if there is none or it was held for too long.

        What delayed this start may have delayed others, and they must not all start at once: wait for a new permit.
        """
        permit, self._permit = self._permit, None
        return permit if permit is not None and permit.use() else None

    def give_back(self) -> None:
        """Give the permit, if there is one, to another session."""
        if self._permit is not None:
            self._permit.give_back()
            self._permit = None
