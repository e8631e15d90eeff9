"""The event log: gapless sequences per session, each frame and each origin at most once.

Every function here needs the session's log lock (`lock_log`), taken before the transaction wrote anything.
"""

from collections.abc import Callable, Iterator, Sequence

from service.domain.events import Event, NewEvent, Payload
from service.domain.places import Place
from service.store.database import Connection

Encode = Callable[[Payload], tuple[str, bytes]]
"""How a payload is written down: its type's name, and bytes."""


async def lock_log(connection: Connection, session_id: str) -> None:
    """Be the only one to append to this session's log until the transaction ends. The transaction's first statement."""
    await connection.run("lock_session_log", session_id)


async def append(
    connection: Connection,
    encode: Encode,
    session_id: str,
    epoch: int,
    events: Sequence[NewEvent],
    *,
    is_inbound: bool = False,
) -> list[Event]:
    """Append those that are new; what is returned has its place.

    `is_inbound`: they came from WhatsApp, and are evidence for the session; of a deleted one they are nobody's.
    """
    offered = list(_first_of_each_origin(events))
    if not offered:
        return []
    encoded = [encode(event.payload) for event in offered]
    rows = await connection.rows(
        "append_events",
        session_id,
        epoch,
        [event.frame for event in offered],
        [event.time for event in offered],
        [type_name for type_name, _ in encoded],
        [payload for _, payload in encoded],
        [event.origin or None for event in offered],
        is_inbound,
    )
    appended = {row["frame"] for row in rows}
    # What the node makes itself, and what is of the moment, has no frame, and is always new: unless it is nobody's.
    fresh = [event for event in offered if event.frame in appended]
    return [
        Event(row["id"], session_id, row["sequence"], event.time, event.payload, Place(row["horizon"]))
        for row, event in zip(sorted(rows, key=lambda row: row["sequence"]), fresh, strict=True)
    ]


def _first_of_each_origin(events: Sequence[NewEvent]) -> Iterator[NewEvent]:
    """A frame and its repetition can come in one batch."""
    known: set[bytes] = set()
    for event in events:
        if event.origin not in known:
            yield event
        if event.origin:
            known.add(event.origin)
