"""Define what a consumer watches, what it gets, and when it is too slow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from service.domain.caller import Caller
from service.domain.log_positions import LogPosition


@dataclass(frozen=True)
class LoggedEvent:
    """Holds an event of the log. `payload`: a serialised zap.v1.Event with type and payload only."""

    position: LogPosition
    session_id: str
    sequence: int
    time: datetime
    appended_at: datetime
    type: str
    """Type without its prefix. A newer release may have written a type that this one does not know."""
    payload: bytes = field(repr=False)
    user_id: str = ""
    """Current user of the session; empty also if the session was deleted."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EventFilter:
    """Selects events for a caller: those that match every other field. An empty field matches all."""

    caller: Caller
    session_ids: frozenset[str] = frozenset()
    user_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    types: frozenset[str] = frozenset()

    def passes(self, event: LoggedEvent) -> bool:
        """Return whether the filter matches an event."""
        return (
            (not self.session_ids or event.session_id in self.session_ids)
            and (not self.types or event.type in self.types)
            and (not self.user_id or event.user_id == self.user_id)
            and self.labels.items() <= event.labels.items()
        )


@dataclass(frozen=True)
class LogPage:
    """Holds the result of one read of the log."""

    events: Sequence[LoggedEvent]
    upto: LogPosition
    """Position up to which the log was read."""
    is_last: bool
    """No more events were below the horizon."""
    is_held: bool
    """Committed events wait above the horizon until an older transaction ends."""
    newest_id: int
    """Highest id of a committed event; 0: there was none."""
    read_time: datetime
    """Time of the read by the database's clock."""


@dataclass(frozen=True)
class LogBounds:
    """Holds the bounds of the log."""

    oldest: LogPosition
    """Position up to which events were deleted."""
    horizon: LogPosition
    """Last event below the oldest transaction in flight: every event up to it is committed, or will never be."""
    has_asked: bool
    """The position in question belongs to this database."""


@dataclass(frozen=True)
class StartPosition:
    """Says where a consumer begins: at a resume token, at the oldest event, or at the next new event."""

    token: str = ""
    is_oldest: bool = False


@dataclass(frozen=True)
class Delivered:
    """Delivers an event. `token` resumes after it."""

    event: LoggedEvent
    token: str


@dataclass(frozen=True)
class Bookmark:
    """Marks a position of the stream: no event before it will follow."""

    token: str
    is_caught_up: bool
    """Every event in the log was delivered."""
    read_time: datetime | None = None
    """Time of the last read by the database's clock; None: not yet."""


Step = Delivered | Bookmark
"""One element of a stream."""


class SlowConsumerDetector:
    """Detects a consumer that is late and falls further behind.

    A consumer is too slow if it has been more than `limit_s` late for `limit_s`, and more events are ahead of it than
    when that time began. Lateness alone is no sign: an open transaction delays every consumer.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._late_since: float | None = None
        self._behind = 0

    def is_too_slow(self, now: float, late: float, behind: int) -> bool:
        """Check at each event, `late` seconds after its append and `behind` events before the newest one."""
        if late <= self._limit_s:
            self._late_since = None
            return False
        if self._late_since is not None and now - self._late_since < self._limit_s:
            return False
        falls_behind = self._late_since is not None and behind > self._behind
        self._late_since, self._behind = now, behind
        return falls_behind
