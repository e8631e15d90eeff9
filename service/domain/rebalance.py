"""Choose hand-overs that level the number of sessions per node. Pure.

There is no coordinator. Each node computes the same moves from the same numbers, and makes those in which it is the
source. So nodes that decide at the same time do not overload one target, and no move is reversed.
"""

import math
from collections.abc import Mapping, Sequence
from uuid import UUID

from service.domain.lease import Node
from service.domain.placement import Candidate

SMALLEST_DIFFERENCE = 2
"""Difference in sessions between two nodes that makes a move useful."""
TOLERATED_PART = 0.1
"""Part of the average number of sessions; a smaller difference does not begin a rebalance. Once begun, it continues
until the nodes are level."""
CALM_S = 10.0
"""Seconds without an outage, sessions that reconnect, or a change of the nodes, before a rebalance begins."""


class Rebalance:
    """Decides when one node hands a session over, and to which node. `now` in seconds."""

    def __init__(self, incarnation: UUID) -> None:
        self._incarnation = incarnation
        self._members: frozenset[UUID] = frozenset()
        self._calm_since = math.inf
        self._has_begun = False

    def disturb(self) -> None:
        """Restart the calm period."""
        self._members = frozenset()

    def target(self, nodes: Sequence[Candidate], now: float) -> Node | None:
        """Return the node to hand a session to now; None: hand over none."""
        members = frozenset(one.node.incarnation for one in nodes)
        if members != self._members:
            self._members, self._calm_since, self._has_begun = members, now, False
        if now - self._calm_since < CALM_S or not (self._has_begun or is_worth_it(nodes)):
            return None
        target = next_target(nodes, self._incarnation)
        self._has_begun = target is not None
        return target


def is_worth_it(nodes: Sequence[Candidate]) -> bool:
    """Return whether the largest difference between two nodes is worth a rebalance."""
    fewest = min((one.sessions for one in nodes if one.room), default=None)
    if fewest is None:
        return False
    average = sum(one.sessions for one in nodes) / len(nodes)
    difference = max(one.sessions for one in nodes) - fewest
    return difference >= max(SMALLEST_DIFFERENCE, math.ceil(average * TOLERATED_PART))


def next_target(nodes: Sequence[Candidate], incarnation: UUID) -> Node | None:
    """Return the target of this node's next hand-over, if it owns too many."""
    share = shares(nodes)
    owns = {one.node.incarnation: one.sessions for one in nodes}
    # One entry for each session above a node's share, highest level first, and for each one below, lowest level first.
    surplus = sorted((-level, node) for node, sessions in owns.items() for level in range(share[node], sessions))
    deficit = sorted((level, node) for node, sessions in owns.items() for level in range(sessions, share[node]))
    pairs = ((source, target) for (_, source), (_, target) in zip(surplus, deficit, strict=False))
    target = next((target for source, target in pairs if source == incarnation), None)
    if target is None or owns[incarnation] - owns[target] < SMALLEST_DIFFERENCE:
        return None
    return next(one.node for one in nodes if one.node.incarnation == target)


def shares(nodes: Sequence[Candidate]) -> Mapping[UUID, int]:
    """Return each node's share of all sessions, limited by its capacity.

    The remainder goes to the nodes that own the most.
    """
    left = sum(one.sessions for one in nodes)
    share: dict[UUID, int] = {}
    # Smallest capacity first: the others share what exceeds it.
    in_order = sorted(nodes, key=lambda one: (one.most_sessions, one.sessions, one.node.incarnation))
    for index, one in enumerate(in_order):
        share[one.node.incarnation] = min(one.most_sessions, left // (len(nodes) - index))
        left -= share[one.node.incarnation]
    return share
