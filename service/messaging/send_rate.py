"""Limits how fast a session sends: a token bucket, and a pause after WhatsApp has refused a message for its rate."""

from dataclasses import dataclass

FIRST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 1800.0


@dataclass(frozen=True)
class SendLimit:
    """The limit of each session. `rate`: messages a second; 0: none. `burst`: messages at once after a rest."""

    rate: float = 0.0
    burst: int = 20


class SendRate:
    """The rate limiter of one session. Times are those of time.monotonic()."""

    def __init__(self, limit: SendLimit) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._filled_at = 0.0
        self._paused_until = 0.0
        self._pause_s = FIRST_PAUSE_S

    def delay(self, now: float) -> float:
        """Return the seconds until the next message may be sent; 0: it may be sent now."""
        wait = 0.0
        if self._limit.rate > 0:
            self._fill(now)
            wait = max(0.0, (1.0 - self._tokens) / self._limit.rate)
        return max(wait, self._paused_until - now, 0.0)

    def take(self, now: float) -> None:
        """Count a message that is sent now."""
        if self._limit.rate > 0:
            self._fill(now)
            self._tokens -= 1.0

    def refused(self, now: float) -> float:
        """Begin a pause, because WhatsApp refused a message for its rate. Return its seconds.

        Each refusal without a success in between doubles the pause.
        """
        pause, self._pause_s = self._pause_s, min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._paused_until = now + pause
        return pause

    def succeeded(self) -> None:
        """Have the next pause be short again, because WhatsApp took a message."""
        self._pause_s = FIRST_PAUSE_S

    def _fill(self, now: float) -> None:
        if self._filled_at:
            self._tokens += (now - self._filled_at) * self._limit.rate
        self._tokens = min(self._tokens, float(self._limit.burst))
        self._filled_at = now
