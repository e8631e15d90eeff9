"""The event log: gapless sequences per session, each frame at most once.

Every function here needs the session's log lock (`lock_log`), taken before the transaction wrote anything.
"""

from collections.abc import Callable, Sequence

from service.domain.events import Event, NewEvent, Payload
from service.domain.places import Place
from service.store.database import Connection

Encode = Callable[[Payload], tuple[str, bytes]]
"""How a payload is written down: its type's name, and bytes."""


async def lock_log(connection: Connection, session_id: str) -> None:
    """Be the only one to append to this session's log until the transaction ends. The transaction's first statement."""
    await connection.run("lock_session_log", session_id)


async def append(
    connection: Connection, encode: Encode, session_id: str, epoch: int, events: Sequence[NewEvent]
) -> list[Event]:
    """Append those that are new; what is returned has its place."""
    fresh = await _unknown(connection, session_id, epoch, events)
    if not fresh:
        return []
    last = await connection.value("next_sequences", session_id, len(fresh))
    encoded = [encode(event.payload) for event in fresh]
    rows = await connection.rows(
        "insert_events",
        session_id,
        epoch,
        last - len(fresh) + 1,
        [event.frame for event in fresh],
        [event.time for event in fresh],
        [type_name for type_name, _ in encoded],
        [payload for _, payload in encoded],
    )
    numbers = sorted((row["sequence"], row["id"]) for row in rows)
    horizon = Place(rows[0]["horizon"])
    return [
        Event(number, session_id, sequence, event.time, event.payload, horizon)
        for (sequence, number), event in zip(numbers, fresh, strict=True)
    ]


async def _unknown(connection: Connection, session_id: str, epoch: int, events: Sequence[NewEvent]) -> list[NewEvent]:
    frames = [event.frame for event in events if event.frame]
    if not frames:
        return list(events)
    known = {row["frame"] for row in await connection.rows("known_frames", session_id, epoch, frames)}
    return [event for event in events if event.frame not in known]
