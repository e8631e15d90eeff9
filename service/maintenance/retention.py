"""Deletes what is old, on every node; in the database one of them works at a time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol

import structlog

from service.domain.errors import Unavailable
from service.ports import LogMaintenance

log = structlog.get_logger(__name__)

DELETE_BATCH_ROWS = 500
"""Rows deleted in one transaction: while it lasts, Watch shows nothing newer."""
ROUND_INTERVAL_S = 0.05
"""Seconds between two batches, for everybody else."""
EVENT_BUFFER_RETENTION = timedelta(days=1)
"""How long whatsmeow remembers that it has decrypted a message which is in the log. A repetition that comes later is an
"old counter" to whatsmeow, which acknowledges it."""
RETRY_BUFFER_RETENTION = timedelta(days=7)
"""How long a sent message is kept for a device that could not read it. whatsmeow's own limit, which it applies to an
account only when that account sends."""
LONGEST_WAIT = 60.0
"""Seconds between two rounds; a tenth of the retention if that is shorter."""


class Numbers(Protocol):
    """What is counted of it (telemetry.metrics.UpkeepMetrics)."""

    def deleted(self, table: str, rows: int) -> None:
        """So many rows were old."""

    def retention_failed(self) -> None:
        """Old rows could not be deleted."""

    def oldest_event(self, age: float) -> None:
        """The oldest event in the log was appended so many seconds ago."""


class Retention:
    """The job. What fails is logged, and tried again by the next round."""

    def __init__(self, upkeep: LogMaintenance, numbers: Numbers, *, events: timedelta, messages: timedelta) -> None:
        """How long events are kept after they were appended, and callers' messages after they were accepted."""
        self._upkeep = upkeep
        self._numbers = numbers
        self._events = events
        self._messages = messages
        self._wait = min(LONGEST_WAIT, events.total_seconds() / 10)
        self._is_failing = False

    async def run(self) -> None:
        """For ever."""
        while True:
            # Not for secrets: nodes that were started together must not look together.
            await asyncio.sleep(self._wait * random.uniform(0.5, 1.5))  # noqa: S311
            await self._round()

    async def _round(self) -> None:
        try:
            await self._trim()
        except Unavailable as error:
            # Said once for each outage.
            if not self._is_failing:
                log.warning("The database is away; what is old is deleted later.", **error.metadata)
            self._is_failing = True
        except Exception:
            # No session depends on it, and the next round tries again.
            log.exception("What is old could not be deleted.")
        else:
            self._is_failing = False

    async def _trim(self) -> None:
        await self._delete("event", self._upkeep.trim_events, self._events)
        self._numbers.oldest_event(await self._upkeep.oldest_event_age())
        await self._delete("message", self._upkeep.trim_messages, self._messages)
        await self._delete("whatsmeow_event_buffer", self._upkeep.trim_event_buffer, EVENT_BUFFER_RETENTION)
        await self._delete("whatsmeow_retry_buffer", self._upkeep.trim_retry_buffer, RETRY_BUFFER_RETENTION)

    async def _delete(
        self, table: str, trim: Callable[[timedelta, int], Awaitable[int]], older_than: timedelta
    ) -> None:
        """All that is old in a table, batch by batch."""
        deleted = DELETE_BATCH_ROWS
        while deleted == DELETE_BATCH_ROWS:
            try:
                deleted = await trim(older_than, DELETE_BATCH_ROWS)
            except Exception:
                self._numbers.retention_failed()
                raise
            self._numbers.deleted(table, deleted)
            await asyncio.sleep(ROUND_INTERVAL_S)
