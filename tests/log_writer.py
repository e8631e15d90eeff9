"""Appends to the event log without a session, as the node that owned one would."""

import itertools
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from uuid import UUID

from service.domain.events import NewEvent
from service.domain.lease import Lease
from service.domain.observations import Happening
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.events import PostgresEventLog
from zap.v1 import event_pb2 as pb


def message(number: int, size: int = 0) -> NewEvent:
    """An inbound message in a frame of this number, with so many bytes more than it needs."""
    received = pb.Event(
        type=pb.Event.TYPE_MESSAGE_RECEIVED,
        message_received=pb.MessageReceived(message_id=f"M{number}", raw=bytes(size)),
    )
    return NewEvent(Happening("MESSAGE_RECEIVED", received.SerializeToString()), datetime.now(UTC), number)


class LogWriter:
    """`async with LogWriter(database_url) as writer:`."""

    def __init__(self, database_url: str) -> None:
        self._database = Database(database_url, name="log writer", size=2)
        self._log = PostgresEventLog(self._database, encode_payload, lambda *_: None)
        self._frames = itertools.count(1)

    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._database.close()

    async def append(self, session_id: str, count: int = 1, size: int = 0) -> None:
        """So many messages in one transaction."""
        events = [message(next(self._frames), size) for _ in range(count)]
        await self._log.append(Lease(session_id, 1, UUID(int=0)), events)
