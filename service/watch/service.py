"""Follows the log for one consumer: the events since its position, then new events, as fast as it takes them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime

from service.domain.errors import ConsumerTooSlow, FieldViolation, InvalidArgument, OutOfRange, Unavailable
from service.domain.log_positions import START, InvalidToken, LogPosition, ResumeTokenCodec
from service.domain.watch import (
    Bookmark,
    Delivered,
    EventFilter,
    LogBounds,
    LoggedEvent,
    LogPage,
    SlowConsumerDetector,
    StartPosition,
    Step,
)
from service.ports.eventlog import LogReader
from service.watch.tailer import HINTLESS_POLL_S, LogTailer, TailSubscription

BOOKMARK_INTERVAL_S = 10.0
"""Seconds without a response after which a bookmark is sent."""
PAGE_SIZE = 250
"""Events that one read looks at. A consumer that has stopped reading keeps one page in memory."""


class WatchService:
    """Implements EventService.Watch."""

    def __init__(self, reader: LogReader, tail: LogTailer, tokens: ResumeTokenCodec, max_lag_s: float) -> None:
        """`max_lag_s`: seconds that a consumer may lag before it must catch up; see SlowConsumerDetector."""
        self._reader = reader
        self._tail = tail
        self._tokens = tokens
        self._max_lag_s = max_lag_s

    async def watch(self, wanted: EventFilter, start: StartPosition) -> AsyncGenerator[Step, None]:
        """Yield a bookmark, then the events in the log and all that follow.

        Raises InvalidArgument, OutOfRange, NotFound or Unavailable before the first step; OutOfRange and
        ConsumerTooSlow later. Yields nothing while the database is away.
        """
        requested = self._requested(start)
        if wanted.session_ids:
            await self._reader.check_known(wanted)
        bounds = await self._reader.bounds(requested or START)
        position = bounds.horizon if requested is None and not start.is_oldest else self._checked(requested, bounds)
        yield Bookmark(self._tokens.write(position), is_caught_up=False)
        stream = _Stream(self._reader, self._tail, self._tokens, wanted, position, self._max_lag_s)
        async with aclosing(stream.steps()) as steps:
            async for step in steps:
                yield step

    def _requested(self, start: StartPosition) -> LogPosition | None:
        try:
            return self._tokens.read(start.token) if start.token else None
        except InvalidToken as error:
            violation = FieldViolation("resume_token", "is not a token of this service: pass it exactly as received")
            raise InvalidArgument([violation], reason="RESUME_TOKEN_INVALID") from error

    def _checked(self, requested: LogPosition | None, bounds: LogBounds) -> LogPosition:
        """Return the position to begin at. Raises OutOfRange."""
        if requested is None:
            return bounds.oldest
        if requested < bounds.oldest:
            raise _expired(self._tokens, bounds.oldest)
        if not bounds.has_asked:
            token = self._tokens.write(bounds.horizon)
            raise OutOfRange(
                "the resume_token names a position that this database does not have, as after a restore of an older"
                f" backup; resume with {token} for new events only, or with from_start at the oldest event",
                reason="RESUME_TOKEN_AHEAD",
                metadata={"resume_token": token},
            )
        return requested


def _expired(tokens: ResumeTokenCodec, oldest: LogPosition) -> OutOfRange:
    """Return the error for a consumer whose next events were deleted."""
    token = tokens.write(oldest)
    return OutOfRange(
        f"some of the events after the resume_token were deleted; resume with {token}, at the oldest event",
        reason="RESUME_TOKEN_EXPIRED",
        metadata={"resume_token": token},
    )


class _Stream:
    """Reads the log for one consumer: by itself until it is up to date, then from the tail."""

    def __init__(
        self,
        reader: LogReader,
        tail: LogTailer,
        tokens: ResumeTokenCodec,
        wanted: EventFilter,
        position: LogPosition,
        max_lag_s: float,
    ) -> None:
        self._reader = reader
        self._tail = tail
        self._tokens = tokens
        self._wanted = wanted
        self._position = position
        self._clock = asyncio.get_running_loop().time
        self._slow_consumer = SlowConsumerDetector(max_lag_s)
        self._page_time_s = max_lag_s / 4
        self._last_sent_at = self._clock()
        self._read_time: datetime | None = None

    async def steps(self) -> AsyncGenerator[Step, None]:
        """Yield steps until the consumer goes away."""
        while True:
            async with aclosing(self._catch_up(None)) as steps:
                async for step in steps:
                    yield step
            with self._tail.subscribe(self._wanted, self._position) as subscription:
                async with aclosing(self._catch_up(subscription.since)) as steps:
                    async for step in steps:
                        yield step
                # Use the time of this stream's own read: what the tail has read since is queued and was not sent.
                yield self._bookmark(is_caught_up=True, read_time=self._read_time)
                async with aclosing(self._follow(subscription)) as steps:
                    async for step in steps:
                        yield step

    async def _catch_up(self, goal: LogPosition | None) -> AsyncGenerator[Step, None]:
        """Yield what the log has up to `goal`, or up to its end if that is None."""
        while goal is None or self._position < goal:
            page = await self._read()
            self._read_time = page.read_time
            page_deadline = self._clock() + self._page_time_s
            for event in page.events:
                self._check_speed(event, page.read_time, page.newest_id)
                yield self._deliver(event)
                if self._clock() > page_deadline:
                    # The consumer is slow: read the rest again, to know how far it is behind by then.
                    break
            else:
                self._position = page.upto
                if self._clock() - self._last_sent_at > BOOKMARK_INTERVAL_S:
                    yield self._bookmark(is_caught_up=False, read_time=page.read_time)
                if page.is_last:
                    return

    async def _follow(self, subscription: TailSubscription) -> AsyncGenerator[Step, None]:
        """Yield the events of the tail, until the subscription is detached."""
        while not subscription.is_detached:
            event = subscription.next()
            if event is not None:
                if event.position > self._position:
                    self._check_speed(event, subscription.read_time or event.appended_at, subscription.newest_id)
                    yield self._deliver(event)
                continue
            self._position = max(self._position, subscription.upto)
            read_time, due = subscription.read_time, self._last_sent_at + BOOKMARK_INTERVAL_S
            # An overdue bookmark means that the database is away: wait for its next read.
            await subscription.wait(max(due, self._clock() + HINTLESS_POLL_S))
            if self._clock() >= due and subscription.read_time != read_time and not subscription.has_events:
                yield self._bookmark(is_caught_up=True, read_time=subscription.read_time)

    async def _read(self) -> LogPage:
        """Return the next page; wait while the database is away. Raises OutOfRange."""
        while True:
            try:
                page = await self._reader.read(self._position, self._wanted, PAGE_SIZE)
                if page is not None:
                    return page
                oldest = (await self._reader.bounds()).oldest
            except Unavailable:
                await asyncio.sleep(HINTLESS_POLL_S)
                continue
            raise _expired(self._tokens, oldest)

    def _check_speed(self, event: LoggedEvent, read_time: datetime, newest_id: int) -> None:
        """Raise ConsumerTooSlow if need be. Call this before each event, when the consumer has taken the one before."""
        late = (read_time - event.appended_at).total_seconds()
        if self._slow_consumer.is_too_slow(self._clock(), late, newest_id - event.position.id):
            token = self._tokens.write(self._position)
            raise ConsumerTooSlow(
                f"the consumer is too slow: resume with {token}, after the last event that was sent; take events"
                " faster, or fewer of them by a filter",
                metadata={"resume_token": token},
            )

    def _deliver(self, event: LoggedEvent) -> Delivered:
        self._position, self._last_sent_at = event.position, self._clock()
        return Delivered(event, self._tokens.write(event.position))

    def _bookmark(self, *, is_caught_up: bool, read_time: datetime | None) -> Bookmark:
        self._last_sent_at = self._clock()
        return Bookmark(self._tokens.write(self._position), is_caught_up, read_time)
