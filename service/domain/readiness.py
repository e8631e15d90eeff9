"""Whether calls reach Postgres, judged by probes: what /readyz says about it.

A probe is one short statement on the connections that calls use. One that fails is followed by another one soon, and
only two in a row make the node not ready: a single slow answer does not. The sum of the intervals is the bound:
Postgres that falls silent right after an answer is noticed 3.5 s later, and one that answers again within 1.5 s.
"""

PROBE_INTERVAL_S = 1.0
"""From an answer to the next probe."""
PROBE_TIMEOUT_S = 1.0
"""How long a probe may take before it has failed."""
PROBE_RETRY_S = 0.5
"""From a probe that failed to the next one."""
FAILED_PROBES = 2
"""So many in a row say that calls fail."""


class DatabaseHealth:
    """Counts what became of the probes; `now` in seconds."""

    def __init__(self, now: float) -> None:
        self._answered_at = now
        self._failures = 0

    def answered(self, now: float) -> None:
        """Note that a probe was answered."""
        self._answered_at = now
        self._failures = 0

    def failed(self) -> None:
        """Note that a probe was refused, or not answered in time."""
        self._failures += 1

    @property
    def is_reachable(self) -> bool:
        """Whether calls can be expected to succeed."""
        return self._failures < FAILED_PROBES

    @property
    def next_probe_s(self) -> float:
        """Seconds until the next probe."""
        return PROBE_RETRY_S if self._failures else PROBE_INTERVAL_S

    def silent_for(self, now: float) -> float:
        """Return the seconds since the last answer."""
        return now - self._answered_at
