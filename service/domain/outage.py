"""Detect outages of Postgres from a node's lease renewals, and delay claims after one.

In an outage longer than a lease, the leases and the announcements of nodes expire. The first node to renew afterwards
would see no other node, and claim every session. So it claims nothing until the nodes from before the outage have
announced themselves again, for at most one second. A session in another node's claim slot is not yet late, although it
became due during the outage.
"""

from service.domain.placement import CLAIM_GRACE_S

OTHERS_RETURN_S = 1.0
"""Seconds in which other nodes must announce themselves again."""
UNTIL_LATE_S = OTHERS_RETURN_S + CLAIM_GRACE_S
"""Seconds from the end of an outage until a session in another node's claim slot can be late."""
NEVER_LATE_S = 1e9
"""Seconds that no wait reaches."""


class OutageDetector:
    """Tracks the renewals of one node. Every `now` is in seconds of one monotonic clock."""

    def __init__(self, ttl: float, now: float) -> None:
        """`ttl`: of a lease in seconds. Without a renewal for half of it, other nodes do not see this one."""
        self._longest_gap = ttl / 2
        self._began_at = now
        self._ended_at = float("-inf")
        self.renewed_at = now
        """When the last confirmed renewal was sent; initially the start of the node."""

    def renewed(self, sent: float, now: float) -> None:
        """Record a confirmed renewal."""
        if sent - self.renewed_at > self._longest_gap:
            self._began_at, self._ended_at = self.renewed_at, now
        self.renewed_at = sent

    def is_going_on(self, now: float) -> bool:
        """Return whether an outage is going on."""
        return now - self.renewed_at > self._longest_gap

    def ended_ago(self, now: float) -> float:
        """Return the seconds since the last outage ended; infinite if there was none."""
        return now - self._ended_at

    def others_awaited_for(self, now: float) -> float | None:
        """Return within how many seconds awaited nodes must have been live; None: await none."""
        return now - self._began_at if self.ended_ago(now) < OTHERS_RETURN_S else None

    def claim_grace_s(self, now: float) -> float:
        """Return for how many seconds a due session is left to the node that has its claim slot."""
        return CLAIM_GRACE_S if self.ended_ago(now) >= UNTIL_LATE_S else NEVER_LATE_S
