"""Streams that are open now, so that a draining server can end them and say where to go."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from service.domain.errors import Unavailable

T = TypeVar("T")

RETRY_AFTER = 0.5
"""Seconds after which a caller should open its stream again: on another node, or on this one's successor."""


def draining() -> Unavailable:
    """What callers are told when this node is about to stop."""
    return Unavailable("this node is stopping; call again", reason="NODE_DRAINING", retry_after=RETRY_AFTER)


class DrainableStreams:
    """Every wait for a stream's next item, each of which ends with Unavailable once `drain` was called."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self._draining = False

    def drain(self) -> None:
        """End every stream that waits, now, and every other one at its next item."""
        self._draining = True
        now = asyncio.get_running_loop().time()
        for wait in tuple(self._waits):
            wait.reschedule(now)

    async def next_item(self, stream: AsyncGenerator[T, None]) -> T:
        """The next item. Raises StopAsyncIteration at the end, Unavailable when the server drains."""
        return await self.run_until_drained(lambda: anext(stream))

    async def run_until_drained(self, begin: Callable[[], Awaitable[T]]) -> T:
        """What the awaitable of `begin` gives; Unavailable, and it is cancelled, if the server drains first."""
        # What is there already would be handed over without a look at any timeout.
        if self._draining:
            raise draining()
        # A timeout without a time: it takes a cancellation of ours apart from one of the caller's as asyncio does.
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._waits.add(limit)
                return await begin()
        except TimeoutError:
            if limit.expired():
                raise draining() from None
            raise
        finally:
            self._waits.discard(limit)
