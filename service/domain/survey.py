"""How things stand with the sessions that are wanted and not connected: what the reconciler goes by."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.placement import Candidate


@dataclass(frozen=True)
class Survey:
    """How things stand with sessions that are wanted, whichever node has them; a pairing is counted as `pairings` only.

    A session is in at most one of `due`, `silent` and `waiting`.
    """

    due: int = 0
    """Nobody's: to be claimed."""
    late: int = 0
    """Those of them that were left to the node whose place they have for too long: anybody's."""
    silent: int = 0
    """Of a node that has not been heard of for half a lease: to be claimed when that ends."""
    waiting: int = 0
    """They wait in their owner for their turn to be started."""
    pairings: int = 0
    """Pairings that are nobody's: to be claimed."""
    late_pairings: int = 0
    """Those of them that are anybody's."""
    leftovers: bool = False
    """Some session, perhaps a deleted one, left a device behind, and nobody owns it."""
    next_due: float | None = None
    """Seconds until the next session becomes due by itself, or anybody's; None: none will."""
    candidates: Sequence[Candidate] = ()
    """Nodes that go on, this one among them; known only while there is something to claim."""

    @property
    def away(self) -> int:
        """Sessions that are not connected for no fault of theirs: they are waited for."""
        return self.due + self.silent + self.waiting

    @property
    def has_claims(self) -> bool:
        """Something is to be claimed, by this node or another one."""
        return bool(self.due or self.pairings)
