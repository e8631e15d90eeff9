"""Appends to the event log: gapless sequences per session, each dedup key at most once."""

from collections.abc import Callable, Sequence

from service.domain.events import Event, NewEvent, Payload
from service.domain.log_positions import LogPosition
from service.store.database import Connection, Record

Encode = Callable[[Payload], tuple[str, bytes]]
"""Encodes a payload to its type's name and bytes."""


async def lock_log(connection: Connection, session_id: str) -> None:
    """Lock this session's log until the transaction ends. Must be the transaction's first statement."""
    await connection.run("lock_session_log", session_id)


async def append(
    connection: Connection, encode: Encode, session_id: str, epoch: int, events: Sequence[NewEvent]
) -> list[Event]:
    """Append the new events, under the session's log lock, and return them with their log positions."""
    if not events:
        return []
    row = await connection.row("append_events", session_id, epoch, *columns(encode, events))
    assert row is not None  # noqa: S101 - the function always returns a row
    return appended(session_id, events, row)


def columns(encode: Encode, events: Sequence[NewEvent]) -> tuple[list[object], ...]:
    """Return the arguments of zap.append_events: times, types, payloads, origins."""
    encoded = [encode(event.payload) for event in events]
    return (
        [event.time for event in events],
        [type_name for type_name, _ in encoded],
        [payload for _, payload in encoded],
        [event.origin or None for event in events],
    )


def appended(session_id: str, events: Sequence[NewEvent], row: Record) -> list[Event]:
    """Return those of `events` that were appended, by the row that zap.append_events returned."""
    new = [events[number - 1] for number in row["places"]]
    return [
        Event(event_id, session_id, sequence, event.time, event.payload, LogPosition(row["horizon"]))
        for event, event_id, sequence in zip(new, row["ids"], row["sequences"], strict=True)
    ]
