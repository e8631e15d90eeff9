"""The event log: gapless sequences per session, each origin at most once."""

from collections.abc import Callable, Sequence

from service.domain.events import Event, NewEvent, Payload
from service.domain.log_positions import LogPosition
from service.store.database import Connection, Record

Encode = Callable[[Payload], tuple[str, bytes]]
"""How a payload is written down: its type's name, and bytes."""


async def lock_log(connection: Connection, session_id: str) -> None:
    """Be the only one to append to this session's log until the transaction ends. The transaction's first statement."""
    await connection.run("lock_session_log", session_id)


async def append(
    connection: Connection, encode: Encode, session_id: str, epoch: int, events: Sequence[NewEvent]
) -> list[Event]:
    """Append those that are new, under the session's log lock; what is returned has its place."""
    if not events:
        return []
    row = await connection.row("append_events", session_id, epoch, *columns(encode, events))
    assert row is not None  # noqa: S101 - it always returns one
    return appended(session_id, events, row)


def columns(encode: Encode, events: Sequence[NewEvent]) -> tuple[list[object], ...]:
    """Events as zap.append_events takes them: times, types, payloads, origins."""
    encoded = [encode(event.payload) for event in events]
    return (
        [event.time for event in events],
        [type_name for type_name, _ in encoded],
        [payload for _, payload in encoded],
        [event.origin or None for event in events],
    )


def appended(session_id: str, events: Sequence[NewEvent], row: Record) -> list[Event]:
    """Those of `events` that are in the log by what zap.append_events has returned."""
    fresh = [events[place - 1] for place in row["places"]]
    return [
        Event(event_id, session_id, sequence, event.time, event.payload, LogPosition(row["horizon"]))
        for event, event_id, sequence in zip(fresh, row["ids"], row["sequences"], strict=True)
    ]
