"""Deletes old rows. Every node runs it; the database lets one node delete at a time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol

import structlog

from service.domain.errors import Unavailable
from service.ports.eventlog import LogMaintenance

log = structlog.get_logger(__name__)

DELETE_BATCH_ROWS = 500
"""Rows deleted in one transaction; while it lasts, Watch shows nothing newer."""
BATCH_INTERVAL_S = 0.05
"""Seconds between two batches, which leave the database to other transactions."""
EVENT_BUFFER_RETENTION = timedelta(days=1)
"""How long whatsmeow remembers that it has decrypted a message that is in the log. whatsmeow rejects a later repetition
as an "old counter" and acknowledges it."""
RETRY_BUFFER_RETENTION = timedelta(days=7)
"""How long a sent message is kept for a device that could not read it. It is whatsmeow's limit, which whatsmeow applies
to an account only when that account sends."""
MAX_ROUND_INTERVAL_S = 60.0
"""Mean seconds between two rounds; a tenth of the event retention if that is shorter."""


class Numbers(Protocol):
    """Receives the counts of retention; implemented by telemetry.metrics.MaintenanceMetrics."""

    def deleted(self, table: str, rows: int) -> None:
        """Count deleted rows of a table."""

    def retention_failed(self) -> None:
        """Count a deletion that failed."""

    def oldest_event(self, age: float) -> None:
        """Set the age of the oldest event in the log, in seconds."""


class Retention:
    """Deletes old rows in rounds. A failure is logged and retried in the next round."""

    def __init__(self, upkeep: LogMaintenance, numbers: Numbers, *, events: timedelta, messages: timedelta) -> None:
        """Keep events for `events` after their append, and messages for `messages` after their acceptance."""
        self._upkeep = upkeep
        self._numbers = numbers
        self._events = events
        self._messages = messages
        self._round_interval = min(MAX_ROUND_INTERVAL_S, events.total_seconds() / 10)
        self._is_failing = False

    async def run(self) -> None:
        """Run rounds until cancelled."""
        while True:
            # Jitter keeps nodes that started together from deleting together; it needs no secure random numbers.
            await asyncio.sleep(self._round_interval * random.uniform(0.5, 1.5))  # noqa: S311
            await self._round()

    async def _round(self) -> None:
        try:
            await self._trim()
        except Unavailable as error:
            # Each outage is logged once.
            if not self._is_failing:
                log.warning("The database is away; old rows are deleted later.", **error.metadata)
            self._is_failing = True
        except Exception:
            # No session depends on retention, so the loop continues.
            log.exception("Deleting old rows failed; retrying in the next round.")
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
        """Delete all old rows of a table in batches."""
        deleted = DELETE_BATCH_ROWS
        while deleted == DELETE_BATCH_ROWS:
            try:
                deleted = await trim(older_than, DELETE_BATCH_ROWS)
            except Exception:
                self._numbers.retention_failed()
                raise
            self._numbers.deleted(table, deleted)
            await asyncio.sleep(BATCH_INTERVAL_S)
