"""Which events a consumer wants, and whether it keeps up with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from service.domain.places import Place


@dataclass(frozen=True)
class LoggedEvent:
    """An event as the log has it: its payload is a serialised zap.v1.Event that holds nothing else."""

    place: Place
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
class Page:
    """What one look at the log gave."""

    events: Sequence[LoggedEvent]
    upto: Place
    """Everything up to here was looked at."""
    is_last: bool
    """Nothing else was below the horizon."""
    is_held: bool
    """Events are committed that lie above it: they come when a transaction that is older than theirs has ended."""
    behind: int
    """How many events, about, were in the log after `upto`."""
    read_time: datetime
    """By the database's clock."""


@dataclass(frozen=True)
class LogBounds:
    """What places there are."""

    oldest: Place
    """Up to here events were deleted."""
    horizon: Place
    """Everything before it is committed, or will never be."""
    newest_xid: int
    """No transaction with a higher number has ended yet."""
    newest_id: int
    """No event has a higher id."""


@dataclass(frozen=True)
class Start:
    """Where a consumer begins: at a token's place, with the oldest event, or with what happens from now on."""

    token: str = ""
    is_oldest: bool = False


@dataclass(frozen=True)
class Given:
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


Step = Given | Bookmark
"""One step of a consumer's way through the log."""


class Pace:
    """Whether a consumer keeps up: it may be late, and it may be slow, but it must come nearer while it is late.

    It is too slow if it is more than `patience` seconds late and there is more before it than `patience` seconds ago.
    """

    def __init__(self, patience: float, now: float) -> None:
        self._patience = patience
        self._since = now
        self._behind: int | None = None

    def is_too_slow(self, now: float, late: float, behind: int) -> bool:
        """`late`: seconds since the next event was appended; `behind`: events still before it."""
        if self._behind is None:
            self._behind = behind
        if now - self._since < self._patience:
            return False
        falls_back = late > self._patience and behind > self._behind
        self._since, self._behind = now, behind
        return falls_back
