"""Decides when and in which lane a session's next process starts, from how its processes ended before."""

from service.domain import observations as seen
from service.domain.backoff import LONGEST_WAIT_S, STEADY_S, backoff
from service.domain.disconnect_policy import POLICIES, Cause
from service.domain.session import Input
from service.domain.start_scheduler import Lane

MOST_SHORT_LOGINS = 5
"""Processes in a row that may log in and end within STEADY_S; then the wait grows to LONGEST_WAIT_S for every cause."""


class RestartPolicy:
    """Counts the failures in a row of one session. `now` is always time.monotonic()."""

    def __init__(self, ttl: float) -> None:
        """`ttl`: of the lease, in seconds; a session that was replaced by another connection waits that long."""
        self._failures = 0
        self._ttl = ttl
        self._connected_at: float | None = None
        self._ended_soon_after_login = False

    def record(self, cause: Input, now: float) -> None:
        """Count an end as a failure. Only a connection of STEADY_S seconds resets the count."""
        if isinstance(cause, seen.Connected):
            self._connected_at = self._connected_at or now
        elif isinstance(cause, seen.Ended):
            was_steady = self._connected_at is not None and now - self._connected_at >= STEADY_S
            self._failures = 1 if was_steady else self._failures + 1
            self._ended_soon_after_login = self._connected_at is not None and not was_steady
            self._connected_at = None

    def inherit(self, attempts: int) -> None:
        """Count the failed attempts of earlier owners too, so that a new owner does not begin with short waits."""
        self._failures = max(self._failures, attempts - 1)

    def reset(self) -> None:
        """Forget the failures."""
        self._failures = 0

    def wait_after(self, cause: Input, jitter: float) -> float:
        """Return the seconds to wait before the next process; `jitter` is a random number from 0 to 1."""
        if isinstance(cause, seen.Ended) and cause.cause is Cause.STREAM_REPLACED:
            return self._ttl
        # A session that logs in and ends at once, again and again, would log in far too often.
        is_login_loop = self._ended_soon_after_login and self._failures > MOST_SHORT_LOGINS
        longest = LONGEST_WAIT_S
        if isinstance(cause, seen.Ended) and not is_login_loop:
            longest = POLICIES[cause.cause].longest_wait
        return backoff(self._failures, jitter, longest)

    def lane(self, *, is_pairing: bool) -> Lane:
        """Return the lane in which the next process waits for its start permit."""
        if self._failures > 1:
            return Lane.BACKOFF
        return Lane.PAIRING if is_pairing else Lane.RESTART
