"""Follows the log for one consumer: what there is since his place, then what comes, at his own pace."""

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
from service.ports import LogReader
from service.watch.tailer import HINTLESS_POLL_S, LogTailer, TailSubscription

BOOKMARK_INTERVAL_S = 10.0
"""Seconds without a response after which a bookmark comes."""
PAGE_SIZE = 250
"""Events that are looked at in one page: a consumer who stands still keeps one in memory, and many may."""


class WatchService:
    """The use-case of EventService.Watch."""

    def __init__(self, reader: LogReader, tail: LogTailer, tokens: ResumeTokenCodec, patience: float) -> None:
        """`patience`: seconds after which a consumer who only falls back is told that he is too slow."""
        self._reader = reader
        self._tail = tail
        self._tokens = tokens
        self._patience = patience

    async def watch(self, wanted: EventFilter, start: StartPosition) -> AsyncGenerator[Step, None]:
        """A bookmark, then what there is and what comes, for ever. Leaves nothing behind when it is closed.

        Raises InvalidArgument, OutOfRange, NotFound or Unavailable before the first step; OutOfRange and
        ConsumerTooSlow later. It outlives an outage of the database in silence.
        """
        asked = self._asked(start)
        if wanted.session_ids:
            await self._reader.check_known(sorted(wanted.session_ids))
        bounds = await self._reader.bounds(asked or START)
        place = bounds.horizon if asked is None and not start.is_oldest else self._checked(asked, bounds)
        yield Bookmark(self._tokens.write(place), is_caught_up=False)
        stream = _Stream(self._reader, self._tail, self._tokens, wanted, place, self._patience)
        async with aclosing(stream.steps()) as steps:
            async for step in steps:
                yield step

    def _asked(self, start: StartPosition) -> LogPosition | None:
        try:
            return self._tokens.read(start.token) if start.token else None
        except InvalidToken as error:
            violation = FieldViolation("resume_token", "is not one that this service gave: use it as you got it")
            raise InvalidArgument([violation], reason="RESUME_TOKEN_INVALID") from error

    def _checked(self, asked: LogPosition | None, bounds: LogBounds) -> LogPosition:
        """The place to begin at. Raises OutOfRange."""
        if asked is None:
            return bounds.oldest
        if asked < bounds.oldest:
            raise expired(self._tokens, bounds.oldest)
        if not bounds.has_asked:
            token = self._tokens.write(bounds.horizon)
            raise OutOfRange(
                "the resume_token is of a moment that this database never saw: it was restored from before it;"
                f" {token} resumes at what happens from now on, from_start with the oldest event",
                reason="RESUME_TOKEN_AHEAD",
                metadata={"resume_token": token},
            )
        return asked


def expired(tokens: ResumeTokenCodec, oldest: LogPosition) -> OutOfRange:
    """What a consumer is told whose next events were deleted."""
    token = tokens.write(oldest)
    return OutOfRange(
        f"some of what followed the resume_token is deleted; {token} resumes with the oldest event there is",
        reason="RESUME_TOKEN_EXPIRED",
        metadata={"resume_token": token},
    )


class _Stream:
    """One consumer's way through the log."""

    def __init__(
        self,
        reader: LogReader,
        tail: LogTailer,
        tokens: ResumeTokenCodec,
        wanted: EventFilter,
        place: LogPosition,
        patience: float,
    ) -> None:
        self._reader = reader
        self._tail = tail
        self._tokens = tokens
        self._wanted = wanted
        self._place = place
        self._clock = asyncio.get_running_loop().time
        self._pace = SlowConsumerDetector(patience)
        self._glance = patience / 4
        self._spoke = self._clock()
        self._read_time: datetime | None = None

    async def steps(self) -> AsyncGenerator[Step, None]:
        """For ever."""
        while True:
            async with aclosing(self._catch_up(None)) as steps:
                async for step in steps:
                    yield step
            with self._tail.seat(self._wanted, self._place) as seat:
                async with aclosing(self._sit(seat)) as steps:
                    async for step in steps:
                        yield step

    async def _sit(self, seat: TailSubscription) -> AsyncGenerator[Step, None]:
        """At the tail: first from its own place to where the tail was when it sat down."""
        async with aclosing(self._catch_up(seat.since)) as steps:
            async for step in steps:
                yield step
        # Not when the tail has looked: what it has found since waits here, and was not given.
        yield self._mark(is_caught_up=True, read_time=self._read_time)
        async with aclosing(self._follow(seat)) as steps:
            async for step in steps:
                yield step

    async def _catch_up(self, goal: LogPosition | None) -> AsyncGenerator[Step, None]:
        """Reads by itself, up to a place, or (None) to the end of the log."""
        while goal is None or self._place < goal:
            page = await self._read()
            self._read_time = page.read_time
            given_up_at = self._clock() + self._glance
            for event in page.events:
                self._check_pace(event, page.read_time, page.newest_id)
                yield self._give(event)
                if self._clock() > given_up_at:
                    # Slow: what is left is read again, with a look at how far there is to go.
                    break
            else:
                self._place = page.upto
                if self._clock() - self._spoke > BOOKMARK_INTERVAL_S:
                    yield self._mark(is_caught_up=False, read_time=page.read_time)
                if page.is_last:
                    return

    async def _follow(self, seat: TailSubscription) -> AsyncGenerator[Step, None]:
        """What comes, until it comes too fast."""
        while not seat.is_lost:
            event = seat.next()
            if event is not None:
                if event.place > self._place:
                    self._check_pace(event, seat.read_time or event.appended_at, seat.newest_id)
                    yield self._give(event)
                continue
            self._place = max(self._place, seat.upto)
            read_time, due = seat.read_time, self._spoke + BOOKMARK_INTERVAL_S
            # When it is overdue the database is away: a bookmark would say more than anybody knows.
            await seat.wait(max(due, self._clock() + HINTLESS_POLL_S))
            if self._clock() >= due and seat.read_time != read_time and not seat.has_news:
                yield self._mark(is_caught_up=True, read_time=seat.read_time)

    async def _read(self) -> LogPage:
        """The next page for this consumer; waits for as long as the database is away."""
        while True:
            try:
                page = await self._reader.read(self._place, self._wanted, PAGE_SIZE)
                if page is not None:
                    return page
                oldest = (await self._reader.bounds()).oldest
            except Unavailable:
                await asyncio.sleep(HINTLESS_POLL_S)
                continue
            raise expired(self._tokens, oldest)

    def _check_pace(self, event: LoggedEvent, read_time: datetime, newest_id: int) -> None:
        """Before the event is given: the one before it was taken when this is asked. Raises ConsumerTooSlow."""
        late = (read_time - event.appended_at).total_seconds()
        if self._pace.is_too_slow(self._clock(), late, newest_id - event.place.id):
            raise self._too_slow()

    def _give(self, event: LoggedEvent) -> Delivered:
        self._place, self._spoke = event.place, self._clock()
        return Delivered(event, self._tokens.write(event.place))

    def _mark(self, *, is_caught_up: bool, read_time: datetime | None) -> Bookmark:
        self._spoke = self._clock()
        return Bookmark(self._tokens.write(self._place), is_caught_up, read_time)

    def _too_slow(self) -> ConsumerTooSlow:
        token = self._tokens.write(self._place)
        return ConsumerTooSlow(
            f"you take events more slowly than they come: {token} resumes after the last one that you were given;"
            " take them faster, or fewer of them by a filter",
            metadata={"resume_token": token},
        )
