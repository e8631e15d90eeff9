"""Choose the node for a session: the least loaded one with room. Pure.

`select_target` chooses the target of a hand-over. Claims have no coordinator: each node computes its slots in the queue
of unowned sessions (`claim_slots`). All nodes compute the assignment that `select_target` would make.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from service.domain.lease import Node

CLAIM_GRACE_S = 1.0
"""Seconds for which a due session is left to the node that has its slot. Then any node with room may claim it: the
first one may be frozen, out of start permits, or full, and sessions must be back 3 s after a ttl."""


@dataclass(frozen=True)
class Candidate:
    """Describes a live node that is not stopping."""

    node: Node
    sessions: int
    """Number that the node owned when it was read."""
    most_sessions: int

    @property
    def room(self) -> int:
        """Return how many more sessions the node accepts."""
        return max(0, self.most_sessions - self.sessions)


def select_target(candidates: Sequence[Candidate], promised: Mapping[UUID, int]) -> Node | None:
    """Return the least loaded node with room; None: there is none.

    `promised`: by incarnation, the sessions handed over since the count. The smallest incarnation wins a tie, so that
    every node selects the same target.
    """

    def load(candidate: Candidate) -> int:
        return candidate.sessions + promised.get(candidate.node.incarnation, 0)

    fit = [candidate for candidate in candidates if load(candidate) < candidate.most_sessions]
    return min(fit, key=lambda one: (load(one), one.node.incarnation)).node if fit else None


def claim_slots(candidates: Sequence[Candidate], incarnation: UUID, most: int) -> Sequence[int]:
    """Return at most `most` slots of a node in the claim queue, counted from 1.

    Nodes that compute from the same numbers share no slot, and leave none out while there is room. After a claim the
    slots of the other nodes move up, and the assignment stays the same. Without candidates (no node is live)
    every slot belongs to the node.
    """
    if not candidates:
        return range(1, most + 1)
    me = next((one for one in candidates if one.node.incarnation == incarnation), None)
    if me is None:
        return ()
    levels = range(me.sessions, me.sessions + min(me.room, most))
    return [1 + sum(_filled_before(other, level, incarnation) for other in candidates) for level in levels]


def _filled_before(other: Candidate, level: int, incarnation: UUID) -> int:
    """Return how many sessions `other` gets before this incarnation, which owns `level`, gets another one."""
    is_first_of_equals = other.node.incarnation < incarnation
    return max(0, min(other.room, level + is_first_of_equals - other.sessions))
