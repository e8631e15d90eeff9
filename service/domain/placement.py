"""Which node a session is handed over to. Pure: from what nodes say of themselves to one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from service.domain.lease import Node


@dataclass(frozen=True)
class Candidate:
    """A node that goes on."""

    node: Node
    sessions: int
    """That it owned when it was asked for."""
    most_sessions: int


def heir(candidates: Sequence[Candidate], promised: Mapping[UUID, int]) -> Node | None:
    """The one with the fewest sessions of those that have room; None: there is none.

    `promised`: by incarnation, what was handed over since they were counted. Of several that have as few, the one of
    the smallest incarnation: whoever asks gets the same answer.
    """

    def load(candidate: Candidate) -> int:
        return candidate.sessions + promised.get(candidate.node.incarnation, 0)

    fit = [candidate for candidate in candidates if load(candidate) < candidate.most_sessions]
    return min(fit, key=lambda one: (load(one), one.node.incarnation)).node if fit else None
