"""Who may start a session process next, and when: one bucket of turns for a node, and lanes that share it.

A turn is leave to start one process. Turns come at a rate, and never more than a second's worth of them is about:
in the bucket, or granted and neither used nor given back. So what was held up together (by a database that was away,
say) does not start together. A turn that is held for longer than HOLD is void, lest ten sessions that are stuck keep
all others from starting.

Who is next: the lanes take turns in the order of ROUND, and one in which nobody waits is passed over. So no crowd in
one lane keeps another lane waiting for more than a few turns: the first in PAIRING, FALLEN or CLAIMED waits for at
most three others, the first in FAILING for nine.
"""

import enum
from dataclasses import dataclass, field

PERMIT_TTL_S = 5.0
"""Seconds for which a turn may be held; from a turn to its process there are three short transactions."""


class Lane(enum.Enum):
    """Why a process is to be started."""

    #: Somebody waits with the phone in the hand. Who came first is first.
    PAIRING = "PAIRING"
    #: Its process ended here, and that is no habit of it. Who was active last is first.
    FALLEN = "FALLEN"
    #: It is wanted and nobody's: to be claimed. The database says who is first.
    CLAIMED = "CLAIMED"
    #: It keeps failing. Who came first is first.
    FAILING = "FAILING"


WEIGHTED_ROUND_ROBIN = (*(Lane.PAIRING, Lane.FALLEN, Lane.CLAIMED) * 3, Lane.FAILING)


@dataclass(eq=False)
class PermitRequest:
    """A place in a lane, for one turn or several."""

    lane: Lane
    wants: int
    active_at: float
    """When the session was last active; on any clock that all of its lane are on."""
    turns: list[int] = field(default_factory=list)
    """Those that were granted, by number."""


class StartScheduler:
    """The bucket and the lanes. `now` is always time.monotonic(); what is granted must be used or given back."""

    def __init__(self, rate: float, now: float) -> None:
        """`rate`: turns a second, more than 0."""
        self.rate = rate
        self._most = max(1.0, rate)
        self._ready = self._most
        self._filled_at = now
        self._held: dict[int, float] = {}
        self._granted = 0
        self._lanes: dict[Lane, list[PermitRequest]] = {lane: [] for lane in Lane}
        self._place = 0

    def join(self, lane: Lane, wants: int = 1, active_at: float = 0.0) -> PermitRequest:
        """Wait in a lane for so many turns."""
        waiting = PermitRequest(lane, wants, active_at)
        before = self._lanes[lane]
        place = len(before)
        if lane is Lane.FALLEN:
            place = next((at for at, other in enumerate(before) if other.active_at < active_at), place)
        before.insert(place, waiting)
        return waiting

    def leave(self, waiting: PermitRequest) -> None:
        """Wait no longer; what was granted already is still held."""
        if waiting in self._lanes[waiting.lane]:
            self._lanes[waiting.lane].remove(waiting)

    def grant(self, now: float) -> PermitRequest | None:
        """Grant the next turn to who is first, and say who that is; None if none is ready or nobody waits."""
        self._fill(now)
        place = self._next_place()
        if place is None or self._ready < 1:
            return None
        self._place = (place + 1) % len(WEIGHTED_ROUND_ROBIN)
        waiting = self._lanes[WEIGHTED_ROUND_ROBIN[place]][0]
        self._granted += 1
        self._ready -= 1
        self._held[self._granted] = now
        waiting.turns.append(self._granted)
        if len(waiting.turns) == waiting.wants:
            self.leave(waiting)
        return waiting

    def use(self, turn: int, now: float) -> bool:
        """A process is started on this turn; False if it is void and another one must be waited for."""
        self._fill(now)
        return self._held.pop(turn, None) is not None

    def give_back(self, turn: int, now: float) -> bool:
        """Nothing was started on it: it is somebody else's. False if it was used already, or is void."""
        was_held = self.use(turn, now)
        self._ready += was_held
        return was_held

    def wait(self, now: float) -> float | None:
        """Seconds until the next turn can be granted, if none is given back before; None: nobody waits."""
        self._fill(now)
        if self._next_place() is None:
            return None
        if self._most - len(self._held) < 1:
            return max(0.0, min(self._held.values()) + PERMIT_TTL_S - now)
        return max(0.0, (1 - self._ready) / self.rate)

    def _next_place(self) -> int | None:
        """Where in ROUND the next turn is granted; None: nobody waits."""
        places = ((self._place + step) % len(WEIGHTED_ROUND_ROBIN) for step in range(len(WEIGHTED_ROUND_ROBIN)))
        return next((place for place in places if self._lanes[WEIGHTED_ROUND_ROBIN[place]]), None)

    def _fill(self, now: float) -> None:
        self._held = {turn: since for turn, since in self._held.items() if now - since < PERMIT_TTL_S}
        room = self._most - len(self._held)
        self._ready = min(room, self._ready + max(0.0, now - self._filled_at) * self.rate)
        self._filled_at = now
