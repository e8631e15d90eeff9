"""Limit and order the starts of session processes on a node: a token bucket of permits, shared by lanes.

A permit allows the start of one process. Permits come at a fixed rate. At most one second's worth exists at a time, in
the bucket or held by requests, so that sessions delayed together (by an outage of the database) do not start together.
A permit expires after PERMIT_TTL_S so that stuck sessions cannot block all starts.

Weighted round robin picks the lane of the next permit and skips empty lanes, so that no lane starves another one. The
first request in PAIRING, RESTART or CLAIM waits for at most three permits of other lanes, in BACKOFF for nine.

Fewer lanes would lose one of these bounds, since hundreds can wait in each lane: pairings when a caller activates
sessions in bulk, restarts after an outage of the database, claims when a node dies, back-off when a release crashes.
One order of priority for two of them would have the second wait until the first is empty. BACKOFF at the end of RESTART
would let sessions in a crash loop take a third of all permits from healthy ones, instead of a tenth.
"""

import enum
from dataclasses import dataclass, field

PERMIT_TTL_S = 5.0
"""Seconds until a held permit expires; between a permit and its process there are three short transactions."""


class Lane(enum.Enum):
    """Says why a process is to be started, and thus in which queue it waits. Metrics and logs show the value."""

    #: A user waits for a code. First come, first served.
    PAIRING = "PAIRING"
    #: Crashed on this node and not crash-looping. Most recently active first.
    RESTART = "FALLEN"
    #: Unowned session to be claimed. The database decides the order.
    CLAIM = "CLAIMED"
    #: Crash-looping. First come, first served.
    BACKOFF = "FAILING"


WEIGHTED_ROUND_ROBIN = (*(Lane.PAIRING, Lane.RESTART, Lane.CLAIM) * 3, Lane.BACKOFF)


@dataclass(eq=False)
class PermitRequest:
    """Waits in a lane for one permit or several."""

    lane: Lane
    wants: int
    active_at: float
    """When the session was last active, on the clock that all requests of the lane use."""
    permits: list[int] = field(default_factory=list)
    """Numbers of the granted permits."""


class StartScheduler:
    """Grants permits to requests. `now` is always time.monotonic(); each permit must be used or given back."""

    def __init__(self, rate: float, now: float) -> None:
        """`rate`: permits per second, more than 0."""
        self.rate = rate
        self._capacity = max(1.0, rate)
        self._available = self._capacity
        self._filled_at = now
        self._held: dict[int, float] = {}
        self._granted = 0
        self._lanes: dict[Lane, list[PermitRequest]] = {lane: [] for lane in Lane}
        self._round_index = 0

    def join(self, lane: Lane, wants: int = 1, active_at: float = 0.0) -> PermitRequest:
        """Add a request for `wants` permits to a lane."""
        request = PermitRequest(lane, wants, active_at)
        queue = self._lanes[lane]
        index = len(queue)
        if lane is Lane.RESTART:
            index = next((at for at, other in enumerate(queue) if other.active_at < active_at), index)
        queue.insert(index, request)
        return request

    def leave(self, request: PermitRequest) -> None:
        """Remove a request from its lane; its granted permits remain held."""
        if request in self._lanes[request.lane]:
            self._lanes[request.lane].remove(request)

    def grant(self, now: float) -> PermitRequest | None:
        """Grant the next permit and return the request that has it; None if no permit is available or no lane waits."""
        self._fill(now)
        index = self._next_index()
        if index is None or self._available < 1:
            return None
        self._round_index = (index + 1) % len(WEIGHTED_ROUND_ROBIN)
        request = self._lanes[WEIGHTED_ROUND_ROBIN[index]][0]
        self._granted += 1
        self._available -= 1
        self._held[self._granted] = now
        request.permits.append(self._granted)
        if len(request.permits) == request.wants:
            self.leave(request)
        return request

    def use(self, permit: int, now: float) -> bool:
        """Use a permit for a start. False: it has expired; request another one."""
        self._fill(now)
        return self._held.pop(permit, None) is not None

    def give_back(self, permit: int, now: float) -> bool:
        """Return an unused permit to the bucket. False: it was used or has expired."""
        was_held = self.use(permit, now)
        self._available += was_held
        return was_held

    def wait(self, now: float) -> float | None:
        """Return the seconds until the next grant, if no permit is given back before; None: all lanes are empty."""
        self._fill(now)
        if self._next_index() is None:
            return None
        if self._capacity - len(self._held) < 1:
            return max(0.0, min(self._held.values()) + PERMIT_TTL_S - now)
        return max(0.0, (1 - self._available) / self.rate)

    def _next_index(self) -> int | None:
        """Return where in WEIGHTED_ROUND_ROBIN the next permit is granted; None: all lanes are empty."""
        count = len(WEIGHTED_ROUND_ROBIN)
        indexes = ((self._round_index + step) % count for step in range(count))
        return next((index for index in indexes if self._lanes[WEIGHTED_ROUND_ROBIN[index]]), None)

    def _fill(self, now: float) -> None:
        self._held = {permit: since for permit, since in self._held.items() if now - since < PERMIT_TTL_S}
        room = self._capacity - len(self._held)
        self._available = min(room, self._available + max(0.0, now - self._filled_at) * self.rate)
        self._filled_at = now
