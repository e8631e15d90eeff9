"""What a session process leaves when its node is gone: all that nobody confirmed, written into the event log by itself.

WhatsApp considers these messages delivered (docs/neonize.md) and the node that was to write them down is dead. Some of
them it may have committed without a word: a frame is written at most once, whoever writes it. The session's state is
not touched; that is for the next owner.

asyncpg is imported by the zygote, before the fork: two hundred orphans have no time to import it all at once.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from service.domain.errors import Unavailable
from service.domain.events import NewEvent
from service.domain.lease import Lease
from service.domain.observations import Happening
from service.domain.receipts import told_by
from service.pool import wire
from service.pool.observed import observed
from service.protocol.events import encode_payload
from service.store.events import PostgresEventLog, end_frozen_append
from service.store.messages import PostgresMessages
from service.store.pooled import PooledDatabase
from service.whatsapp.unconfirmed import Numbered, Unconfirmed
from zap.worker.v1 import frames_pb2

MOST_FRAMES, MOST_BYTES = 200, 4 * 1024 * 1024
"""Written in one transaction."""
_PAUSE = 0.2
"""Seconds between two tries to reach a database that is away."""
_FROZEN = timedelta(milliseconds=250)
"""How long a log may be held by a transaction that does nothing; and the longest wait for it."""
_LOOK = 0.02
"""Seconds between two looks whether anything more has come out of the library."""
_NOBODY = UUID(int=0)
"""Inbound observations are not fenced: whose lease it was does not matter."""


class Bequest:
    """For one thread, once, at the end of the process."""

    def __init__(
        self, start: frames_pb2.Start, unconfirmed: Unconfirmed, more_may_come: Callable[[], bool] = lambda: False
    ) -> None:
        """`more_may_come`: whether the library is still busy with what it had taken from WhatsApp."""
        self._more_may_come = more_may_come
        self._lease = Lease(start.session_id, start.epoch, _NOBODY)
        self._unconfirmed = unconfirmed
        name = f"zap-service/{start.session_id}/{start.epoch}"
        limit = {"lock_timeout": f"{_FROZEN // timedelta(milliseconds=1)}ms"}
        database = PooledDatabase(start.log_url, name=name, size=1, timeouts=limit)
        self._database = database
        self._log = PostgresEventLog(database, encode_payload, self._on_refused)
        self._messages = PostgresMessages(database)
        self._appended = self._handled = 0
        self._refused: list[str] = []

    def write(self, until: float) -> str:
        """Write until nothing is left, or until this moment of time.monotonic(); what became of it, for people."""
        began = time.monotonic()
        # Neither loop nor connection is closed: the process ends right after this.
        asyncio.new_event_loop().run_until_complete(self._write(until))
        words = f"{self._appended} of {self._handled} unconfirmed observations were not in the event log and are now"
        words += f" ({time.monotonic() - began:.2f} s)"
        if self._refused:
            words += f"; {len(self._refused)} were refused ({', '.join(sorted(set(self._refused)))})"
        if left := len(self._unconfirmed.all()):
            words += f"; {left} could not be written in time"
        return words

    async def _write(self, until: float) -> None:
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await self._database.open()
                while await self._write_what_is_there():
                    pass
        except TimeoutError:
            return
        except Exception as error:  # noqa: BLE001 - what no retry mends, a right that is missing: it is told
            self._refused.append(type(error).__name__)

    async def _write_what_is_there(self) -> bool:
        """Write it; whether there can be more."""
        # Asked before: what comes between the two looks is seen by the second one.
        more_may_come = self._more_may_come()
        frames = self._unconfirmed.all()
        for batch in batches(frames):
            await self._write_batch(batch)
            self._unconfirmed.confirm(batch[-1].number)
        if not frames and more_may_come:
            await asyncio.sleep(_LOOK)
        return more_may_come or bool(frames)

    async def _write_batch(self, batch: Sequence[Numbered]) -> None:
        news = [event for frame in batch if (event := self._event_of(frame)) is not None]
        while news:
            try:
                self._appended += len(await self._log.append(self._lease, news))
                for state, message_ids in told_by(news).items():
                    await self._messages.delivered(self._lease.session_id, message_ids, state)
                break
            except Unavailable as error:
                if error.metadata["cause"] != "LockNotAvailableError" or not await self._end_frozen_append():
                    await asyncio.sleep(_PAUSE)
        self._handled += len(batch)

    async def _end_frozen_append(self) -> bool:
        """A node that was stopped in the middle of an append holds the log, for longer than this process may live."""
        with suppress(Unavailable):
            return await end_frozen_append(self._database, self._lease.session_id, _FROZEN)
        return False

    def _event_of(self, frame: Numbered) -> NewEvent | None:
        try:
            return event_of(frame)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one of them must not cost the others
            self._refused.append(type(error).__name__)
            return None

    def _on_refused(self, session_id: str, event: NewEvent, error: Exception) -> None:
        self._refused.append(type(error).__name__)


def batches(frames: Sequence[Numbered]) -> Iterator[Sequence[Numbered]]:
    """All frames in their order, in pieces of a size that one transaction can bear."""
    batch: list[Numbered] = []
    size = 0
    for frame in frames:
        if batch and (len(batch) == MOST_FRAMES or size + len(frame.data) > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(frame)
        size += len(frame.data)
    if batch:
        yield batch


def event_of(frame: Numbered) -> NewEvent:
    """What a frame adds to the log. Raises if nobody could know."""
    seen = observed(frames_pb2.Frame.FromString(wire.body(frame.data)))
    if seen is None or not isinstance(seen.observation, Happening):
        raise TypeError(f"frame {frame.number} has a number and is no event")
    return NewEvent(seen.observation, seen.time, seen.number, seen.origin)
