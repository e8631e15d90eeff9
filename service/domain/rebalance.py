"""Which node hands a session to which other one, so that all own about as many. Pure.

Nobody decides for all. Each node works out the same moves from the same numbers, and makes its own: those in which it
is the giver. So nodes that decide in the same moment do not give to one node together, and no move is taken back.
"""

import math
from collections.abc import Mapping, Sequence
from uuid import UUID

from service.domain.lease import Node
from service.domain.placement import Candidate

SMALLEST_DIFFERENCE = 2
"""Sessions that one node owns more than another one, to begin with: one more is level."""
TOLERATED_PART = 0.1
"""Of the average number of sessions: a difference that is smaller is not worth a move. Once begun, moves go on until
nodes are level."""
CALM_S = 10.0
"""Seconds in which nothing must have happened: no outage, no crowd of sessions on its way back, no node that comes,
goes or stops."""


class Rebalance:
    """What one node has seen, and whether it hands sessions over. `now` in seconds."""

    def __init__(self, incarnation: UUID) -> None:
        self._incarnation = incarnation
        self._members: frozenset[UUID] = frozenset()
        self._calm_since = math.inf
        self._has_begun = False

    def disturb(self) -> None:
        """Note that something goes on that must be over first."""
        self._members = frozenset()

    def target(self, nodes: Sequence[Candidate], now: float) -> Node | None:
        """Return the node that this one hands a session to now; None: it keeps all of its own."""
        members = frozenset(one.node.incarnation for one in nodes)
        if members != self._members:
            self._members, self._calm_since, self._has_begun = members, now, False
        if now - self._calm_since < CALM_S or not (self._has_begun or is_worth_it(nodes)):
            return None
        target = next_target(nodes, self._incarnation)
        self._has_begun = target is not None
        return target


def is_worth_it(nodes: Sequence[Candidate]) -> bool:
    """Whether the difference between the node with the most sessions and the one with the fewest is large enough."""
    fewest = min((one.sessions for one in nodes if one.room), default=None)
    if fewest is None:
        return False
    average = sum(one.sessions for one in nodes) / len(nodes)
    difference = max(one.sessions for one in nodes) - fewest
    return difference >= max(SMALLEST_DIFFERENCE, math.ceil(average * TOLERATED_PART))


def next_target(nodes: Sequence[Candidate], incarnation: UUID) -> Node | None:
    """Return who is given the next session of this node, if it has to give one."""
    share = shares(nodes)
    owns = {one.node.incarnation: one.sessions for one in nodes}
    # A place for each session that a node owns too many, the highest first, and for each it owns too few, the lowest.
    given = sorted((-level, node) for node, sessions in owns.items() for level in range(share[node], sessions))
    taken = sorted((level, node) for node, sessions in owns.items() for level in range(sessions, share[node]))
    pairs = ((giver, taker) for (_, giver), (_, taker) in zip(given, taken, strict=False))
    taker = next((taker for giver, taker in pairs if giver == incarnation), None)
    if taker is None or owns[incarnation] - owns[taker] < SMALLEST_DIFFERENCE:
        return None
    return next(one.node for one in nodes if one.node.incarnation == taker)


def shares(nodes: Sequence[Candidate]) -> Mapping[UUID, int]:
    """Return how many sessions each node owns when all are level, as far as each has room.

    What cannot be divided stays with those that own the most.
    """
    left = sum(one.sessions for one in nodes)
    share: dict[UUID, int] = {}
    # Those that take the least first: what they do not take is shared by the others.
    in_order = sorted(nodes, key=lambda one: (one.most_sessions, one.sessions, one.node.incarnation))
    for place, one in enumerate(in_order):
        share[one.node.incarnation] = min(one.most_sessions, left // (len(nodes) - place))
        left -= share[one.node.incarnation]
    return share
