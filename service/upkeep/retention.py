"""Deletes what is old, on every node; in the database one of them works at a time."""

import asyncio
import random
from datetime import timedelta

import structlog

from service.domain.errors import Unavailable
from service.ports import LogUpkeep

log = structlog.get_logger(__name__)

BATCH = 500
"""Rows deleted in one transaction: while it lasts, Watch shows nothing newer."""
PAUSE = 0.05
"""Seconds between two batches, for everybody else."""
EVENT_BUFFER_RETENTION = timedelta(days=1)
"""How long whatsmeow remembers that it has decrypted a message which is in the log. A repetition that comes later is an
"old counter" to whatsmeow, which acknowledges it."""
RETRY_BUFFER_RETENTION = timedelta(days=7)
"""How long a sent message is kept for a device that could not read it. whatsmeow's own limit, which it applies to an
account only when that account sends."""
LONGEST_WAIT = 60.0
"""Seconds between two rounds; a tenth of the retention if that is shorter."""


class Retention:
    """The job. What fails is logged, and tried again by the next round."""

    def __init__(self, upkeep: LogUpkeep, *, events: timedelta, messages: timedelta) -> None:
        """How long events are kept after they were appended, and callers' messages after they were accepted."""
        self._upkeep = upkeep
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
            self._say("The database is away; what is old is deleted later.", **error.metadata)
        except Exception:
            # No session depends on it, and the next round tries again.
            log.exception("What is old could not be deleted.")
        else:
            self._is_failing = False

    async def _trim(self) -> None:
        for trim, older_than in (
            (self._upkeep.trim_events, self._events),
            (self._upkeep.trim_messages, self._messages),
            (self._upkeep.trim_event_buffer, EVENT_BUFFER_RETENTION),
            (self._upkeep.trim_retry_buffer, RETRY_BUFFER_RETENTION),
        ):
            deleted = BATCH
            while deleted == BATCH:
                deleted = await trim(older_than, BATCH)
                await asyncio.sleep(PAUSE)

    def _say(self, words: str, **fields: str) -> None:
        """Once for each outage."""
        if not self._is_failing:
            log.warning(words, **fields)
        self._is_failing = True
