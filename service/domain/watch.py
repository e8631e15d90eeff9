"""Which events a consumer wants, and whether it keeps up with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from service.domain.log_positions import LogPosition


@dataclass(frozen=True)
class LoggedEvent:
    """An event as the log has it: its payload is a serialised zap.v1.Event that holds nothing else."""

    place: LogPosition
    session_id: str
    sequence: int
    time: datetime
    appended_at: datetime
    type: str
    """The bare word of its type. A newer release may have written one that this one does not know."""
    payload: bytes = field(repr=False)
    user_id: str = ""
    """Whose its session is now; empty too if that was deleted."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EventFilter:
    """Which events are wanted; what is empty leaves nothing out. Those that pass all of it are."""

    session_ids: frozenset[str] = frozenset()
    user_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    types: frozenset[str] = frozenset()

    def passes(self, event: LoggedEvent) -> bool:
        """Whether it is wanted."""
        return (
            (not self.session_ids or event.session_id in self.session_ids)
            and (not self.types or event.type in self.types)
            and (not self.user_id or event.user_id == self.user_id)
            and self.labels.items() <= event.labels.items()
        )


@dataclass(frozen=True)
class LogPage:
    """What one look at the log gave."""

    events: Sequence[LoggedEvent]
    upto: LogPosition
    """Everything up to here was looked at."""
    is_last: bool
    """Nothing else was below the horizon."""
    is_held: bool
    """Events are committed that lie above it: they come when a transaction that is older than theirs has ended."""
    newest_id: int
    """No event that was committed had a higher id; 0: there was none."""
    read_time: datetime
    """By the database's clock."""


@dataclass(frozen=True)
class LogBounds:
    """What places there are."""

    oldest: LogPosition
    """Up to here events were deleted."""
    horizon: LogPosition
    """The last event below the oldest transaction in flight: everything up to it is committed, or will never be."""
    has_asked: bool
    """The place that was asked about is one of this database's."""


@dataclass(frozen=True)
class StartPosition:
    """Where a consumer begins: at a token's place, with the oldest event, or with what happens from now on."""

    token: str = ""
    is_oldest: bool = False


@dataclass(frozen=True)
class Delivered:
    """An event; its place is the consumer's now."""

    event: LoggedEvent
    token: str


@dataclass(frozen=True)
class Bookmark:
    """Nothing that lies before its place will follow."""

    token: str
    is_caught_up: bool
    """Everything in the log was given."""
    read_time: datetime | None = None
    """When the log was read last, by the database's clock; None: not yet."""


Step = Delivered | Bookmark
"""One step of a consumer's way through the log."""


class SlowConsumerDetector:
    """Whether a consumer keeps up: it may be late, and it may be slow, but it must come nearer while it is late.

    It is too slow if it has been more than `patience` seconds late for as long, and there is more before it than there
    was then. Being late once says nothing: what an open transaction held back is late for everybody.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._late_since: float | None = None
        self._behind = 0

    def is_too_slow(self, now: float, late: float, behind: int) -> bool:
        """`late`: seconds since the next event was appended; `behind`: events before it. To be asked at each event."""
        if late <= self._patience:
            self._late_since = None
            return False
        if self._late_since is not None and now - self._late_since < self._patience:
            return False
        falls_back = self._late_since is not None and behind > self._behind
        self._late_since, self._behind = now, behind
        return falls_back
