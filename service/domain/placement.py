"""Which node a session goes to: the one with the fewest that has room. Pure: from what nodes say of themselves.

`heir` says it for a session that is handed over. Claims have nobody who decides for all: each node reckons by itself
which places in the queue of those that are nobody's are its own (`places`), and comes to what `heir` would have said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from service.domain.lease import Node

CLAIM_GRACE_S = 1.0
"""Seconds for which a session that is due is left to the node whose place it has; then it is anybody's who has room.
That node may be frozen, without turns, or full by its own count, and its sessions are to be back 3 s after a ttl."""


@dataclass(frozen=True)
class Candidate:
    """A node that goes on."""

    node: Node
    sessions: int
    """That it owned when it was asked for."""
    most_sessions: int

    @property
    def room(self) -> int:
        """How many more it takes."""
        return max(0, self.most_sessions - self.sessions)


def select_target(candidates: Sequence[Candidate], promised: Mapping[UUID, int]) -> Node | None:
    """The one with the fewest sessions of those that have room; None: there is none.

    `promised`: by incarnation, what was handed over since they were counted. Of several that have as few, the one of
    the smallest incarnation: whoever asks gets the same answer.
    """

    def load(candidate: Candidate) -> int:
        return candidate.sessions + promised.get(candidate.node.incarnation, 0)

    fit = [candidate for candidate in candidates if load(candidate) < candidate.most_sessions]
    return min(fit, key=lambda one: (load(one), one.node.incarnation)).node if fit else None


def claim_slots(candidates: Sequence[Candidate], incarnation: UUID, most: int) -> Sequence[int]:
    """A node's own places in a queue, from 1, if each in turn goes to its heir; at most so many.

    Two nodes that reckon from the same numbers have no place in common, and leave none out while there is room. When
    one of them has claimed, the places of the others move up: what each of them ends with stays the same. Without any
    candidate, nobody has been heard of: every place is one's own.
    """
    if not candidates:
        return range(1, most + 1)
    me = next((one for one in candidates if one.node.incarnation == incarnation), None)
    if me is None:
        return ()
    levels = range(me.sessions, me.sessions + min(me.room, most))
    return [1 + sum(_filled_before(other, level, incarnation) for other in candidates) for level in levels]


def _filled_before(other: Candidate, level: int, incarnation: UUID) -> int:
    """How many sessions a node is given before one of this incarnation's, which owns `level` of them, gets another."""
    is_first_of_equals = other.node.incarnation < incarnation
    return max(0, min(other.room, level + is_first_of_equals - other.sessions))
