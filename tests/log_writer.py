"""Appends to the event log without a session, as a node appends what it says itself."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from service.domain.events import NewEvent
from service.domain.observations import InboundEvent
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.event_rows import append, lock_log
from zap.v1 import event_pb2 as pb


def message(number: int, size: int = 0) -> NewEvent:
    """An inbound message of this number, with so many bytes more than it needs."""
    received = pb.Event(
        type=pb.Event.TYPE_MESSAGE_RECEIVED,
        message_received=pb.MessageReceived(message_id=f"M{number}", raw=bytes(size)),
    )
    return NewEvent(InboundEvent("MESSAGE_RECEIVED", received.SerializeToString()), datetime.now(UTC))


async def append_events(database: Database, session_id: str, events: Sequence[NewEvent]) -> None:
    """In one transaction, with no lease asked for."""
    async with database.transaction() as connection:
        await lock_log(connection, session_id)
        await append(connection, encode_payload, session_id, 1, events)


class LogWriter:
    """`async with LogWriter(database_url) as writer:`."""

    def __init__(self, database_url: str) -> None:
        self._database = Database(database_url, name="log writer", size=2)
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._database.close()

    async def append(self, session_id: str, count: int = 1, size: int = 0) -> None:
        """So many messages in one transaction."""
        await append_events(self._database, session_id, [message(next(self._numbers), size) for _ in range(count)])
