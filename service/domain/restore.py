"""How far sessions are on their way back, in words: what the log says after a restart of everything."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.placement import Candidate

FEW = 2
"""From so many sessions that wait on, it is told; one comes back before anybody reads of it."""
TELL_EVERY = 5.0
"""Seconds between two lines while something changes."""
REMIND_EVERY = 60.0
"""Seconds between two lines while nothing does: no node has room, perhaps."""
SETTLED = 5.0
"""Seconds without a change, with nobody waiting, after which those that are not back are not waited for."""


@dataclass(frozen=True)
class Survey:
    """How things stand with sessions that are wanted, whichever node has them; a pairing is counted as `pairings` only.

    A session is in at most one of `connected`, `due`, `silent` and `waiting`.
    """

    wanted: int = 0
    """Paired, wanted and not given up: they are to be connected."""
    connected: int = 0
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
    silent_for: float = 0.0
    """Seconds until the last of the silent ones is free, unless its node is heard of again."""
    next_due: float | None = None
    """Seconds until the next session becomes due by itself, or anybody's; None: none will."""
    candidates: Sequence[Candidate] = ()
    """Nodes that go on, this one among them; known only while something is unsettled."""

    @property
    def away(self) -> int:
        """Sessions that are not connected for no fault of theirs: they are waited for."""
        return self.due + self.silent + self.waiting

    @property
    def is_unsettled(self) -> bool:
        """Something is to be claimed or started, or will be."""
        return bool(self.away or self.pairings)


@dataclass(frozen=True)
class Progress:
    """Something to tell."""

    sentence: str
    connected: int
    wanted: int
    waiting: int
    seconds: float
    """About how many are left; how many it took, once it is over."""


class Restore:
    """Is shown one survey after the other, and says when many sessions are on their way back. `now` in seconds."""

    def __init__(self, rate: float) -> None:
        """`rate`: starts a second, on each node."""
        self._rate = rate
        self._began_at: float | None = None
        self._told_at = 0.0
        self._changed_at = 0.0
        self._seen: tuple[int, int] | None = None

    @property
    def is_going_on(self) -> bool:
        """Many sessions are on their way back."""
        return self._began_at is not None

    def look(self, survey: Survey, now: float, *, is_full: bool = False) -> Progress | None:
        """What is to be told now, if anything. `is_full`: this node takes no more sessions."""
        if self._began_at is None:
            if survey.away < FEW:
                return None
            self._began_at, self._told_at = now, now - REMIND_EVERY
        if (survey.connected, survey.away) != self._seen:
            self._seen = (survey.connected, survey.away)
            self._changed_at = now
        unchanged = now - self._changed_at
        if not survey.away and (survey.connected >= survey.wanted or unchanged >= SETTLED):
            return self._end(survey, self._changed_at - self._began_at)
        if now - self._told_at < (TELL_EVERY if unchanged < TELL_EVERY else REMIND_EVERY):
            return None
        self._told_at = now
        return self._tell(survey, is_full=is_full)

    def _tell(self, survey: Survey, *, is_full: bool) -> Progress:
        # What is nobody's comes back on all nodes that take it.
        nodes = max(1, sum(one.room > 0 for one in survey.candidates))
        seconds = survey.silent_for + survey.away / (self._rate * nodes)
        sentence = (
            f"Restoring sessions: {survey.connected} of {survey.wanted} connected, {survey.away} waiting,"
            f" about {seconds:.0f} s left"
        )
        if is_full and survey.due:
            sentence += "; this node takes no more (ZAP_MAX_SESSIONS)"
        return Progress(sentence, survey.connected, survey.wanted, survey.away, seconds)

    def _end(self, survey: Survey, took: float) -> Progress:
        self._began_at = None
        sentence = f"Restored sessions: {survey.connected} of {survey.wanted} connected after {took:.1f} s"
        if missing := survey.wanted - survey.connected:
            sentence += f"; Status says what keeps the other {missing}"
        return Progress(sentence, survey.connected, survey.wanted, 0, took)
