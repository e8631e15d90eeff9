"""Judge by probes whether calls reach Postgres, for /readyz.

A probe is one short statement on the connections that calls use. A retry follows a failed probe soon, and only two
failures in a row make the node not ready: a single slow answer does not. So the node is not ready 3.5 s after the last
answer of Postgres at the latest, and ready again within 1.5 s.
"""

PROBE_INTERVAL_S = 1.0
"""Seconds from an answer to the next probe."""
PROBE_TIMEOUT_S = 1.0
"""Timeout of a probe, in seconds."""
PROBE_RETRY_S = 0.5
"""Seconds from a failed probe to the next one."""
FAILED_PROBES = 2
"""Failures in a row that make the node not ready."""


class DatabaseHealth:
    """Counts failed probes in a row. `now` in seconds."""

    def __init__(self, now: float) -> None:
        self._answered_at = now
        self._failures = 0

    def answered(self, now: float) -> None:
        """Record that a probe was answered."""
        self._answered_at = now
        self._failures = 0

    def failed(self) -> None:
        """Record that a probe was refused or timed out."""
        self._failures += 1

    @property
    def is_reachable(self) -> bool:
        """Return whether calls can be expected to succeed."""
        return self._failures < FAILED_PROBES

    @property
    def next_probe_s(self) -> float:
        """Return the seconds until the next probe."""
        return PROBE_RETRY_S if self._failures else PROBE_INTERVAL_S

    def silent_for(self, now: float) -> float:
        """Return the seconds since the last answer."""
        return now - self._answered_at
