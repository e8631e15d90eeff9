"""Declares the durable event log: appending, reading, following and limiting it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from service.domain.events import Event, NewEvent
from service.domain.lease import Lease
from service.domain.log_positions import START, LogPosition
from service.domain.maintenance import OldestTransaction
from service.domain.watch import EventFilter, LogBounds, LogPage, StartPosition, Step


@dataclass(frozen=True)
class Appended:
    """Holds the result of an append to the log."""

    events: Sequence[Event] = ()
    """The new ones, in order."""
    message_ids: Sequence[str] = ()
    """WhatsApp's ids of sent messages whose state the receipts among the events advanced."""


class EventLog(Protocol):
    """Appends inbound events to the durable log."""

    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> Appended:
        """Append events and apply their receipts to sent messages, in one transaction.

        Fenced: raises LeaseLost if the epoch is not the current one, NotFound if the session was deleted (also if a new
        one has its id); nothing is written then. A revoked epoch may still append. An event whose dedup key is in the
        log is neither appended nor returned. An event that Postgres refuses is left out and logged.
        """


class LogReader(Protocol):
    """Reads the durable log in the order of positions. Every method raises Unavailable without Postgres."""

    async def bounds(self, asked: LogPosition = START) -> LogBounds:
        """Return the bounds of the log, and whether `asked` is a position in it."""

    async def check_known(self, wanted: EventFilter) -> None:
        """Raise NotFound for the first of the filter's session ids that has neither a session nor events."""

    async def read(self, after: LogPosition, wanted: EventFilter, limit: int) -> LogPage | None:
        """Read at most `limit` events after a position and return the wanted ones; None: some are deleted.

        Reads only below the horizon: an event that is missing before the page's end will never appear there.
        """


Read = Callable[[LogPosition, EventFilter, int], Awaitable[LogPage | None]]
"""LogReader.read."""


Watch = Callable[[EventFilter, StartPosition], AsyncGenerator[Step, None]]
"""Follows the log: a bookmark, then stored and new events (service.watch.service.WatchService.watch)."""


class LogMaintenance(Protocol):
    """Limits the log's size and finds what blocks its horizon. Every method raises Unavailable without Postgres.

    Each `trim_…` deletes at most `most` rows older than `older_than` and returns their number; 0 also while another
    node trims.
    """

    async def trim_events(self, older_than: timedelta, most: int) -> int:
        """Delete the oldest events below the horizon, by time of append, and move the oldest position with them."""

    async def trim_messages(self, older_than: timedelta, most: int) -> int:
        """Delete settled messages by the time at which they were accepted."""

    async def trim_event_buffer(self, older_than: timedelta, most: int) -> int:
        """Delete rows of whatsmeow's buffer of decrypted messages, only of messages in the log.

        A row of an unacknowledged message stays, since WhatsApp may send the message again.
        """

    async def trim_retry_buffer(self, older_than: timedelta, most: int) -> int:
        """Delete rows of whatsmeow's buffer of sent messages."""

    async def oldest_event_age(self) -> float:
        """Return the seconds since the oldest event was appended; 0 if there is none."""

    async def horizon_holder(self) -> OldestTransaction | None:
        """Return the oldest transaction in flight with an id, in any database of the server; None: there is none."""
