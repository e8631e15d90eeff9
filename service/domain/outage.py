"""Outages of Postgres, as a node's renewals of its leases show them, and how claims begin after one.

In an outage that is longer than a lease everything expires: the leases, and the rows in which nodes announce
themselves. The node that renews first afterwards would see no other node, and claim every session. So it claims
nothing before the nodes that were there before the outage have announced themselves again, or have had a second for
it. What has another node's place is not yet late, although it has been due since the middle of the outage.
"""

from service.domain.placement import CLAIM_GRACE_S

OTHERS_RETURN_S = 1.0
"""How long other nodes have to announce themselves again."""
UNTIL_LATE_S = OTHERS_RETURN_S + CLAIM_GRACE_S
"""From the end of an outage until what is another node's to claim can be late."""
NEVER_LATE_S = 1e9
"""A timeout in seconds that no wait reaches."""


class OutageDetector:
    """Watches the renewals of one node. Every `now` is in seconds of one monotonic clock."""

    def __init__(self, ttl: float, now: float) -> None:
        """`ttl`: of a lease. Half of it without a renewal counts as an outage: others no longer hear of the node."""
        self._longest_gap = ttl / 2
        self._began_at = now
        self._ended_at = float("-inf")
        self.renewed_at = now
        """When the last renewal that was confirmed was sent; at first, when the node started."""

    def renewed(self, sent: float, now: float) -> None:
        """Note a renewal that was confirmed."""
        if sent - self.renewed_at > self._longest_gap:
            self._began_at, self._ended_at = self.renewed_at, now
        self.renewed_at = sent

    def is_going_on(self, now: float) -> bool:
        """Whether no renewal has come through for too long."""
        return now - self.renewed_at > self._longest_gap

    def ended_ago(self, now: float) -> float:
        """Return the seconds since the last outage ended; infinite if there was none."""
        return now - self._ended_at

    def others_awaited_for(self, now: float) -> float | None:
        """Return how many seconds back other nodes must have been heard of to be waited for; None: no longer."""
        return now - self._began_at if self.ended_ago(now) < OTHERS_RETURN_S else None

    def patience_s(self, now: float) -> float:
        """Return for how many seconds a session that is due is left to the node whose place it has."""
        return CLAIM_GRACE_S if self.ended_ago(now) >= UNTIL_LATE_S else NEVER_LATE_S
