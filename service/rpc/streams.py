"""Streams that are open now, so that a draining server can end them and say where to go."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

from service.domain.errors import Unavailable

T = TypeVar("T")

RETRY_AFTER = 0.5
"""Seconds after which a caller should open its stream again: on another node, or on this one's successor."""


def draining() -> Unavailable:
    """What callers are told when this node is about to stop."""
    return Unavailable("this node is stopping; call again", reason="NODE_DRAINING", retry_after=RETRY_AFTER)


class OpenStreams:
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
        return await self.outlast(anext(stream))

    async def outlast(self, wait: Awaitable[T]) -> T:
        """What this awaits, unless the server drains first: then it is cancelled, and Unavailable raised."""
        # A timeout without a time: it takes a cancellation of ours apart from one of the caller's as asyncio does.
        limit = asyncio.timeout(0 if self._draining else None)
        try:
            async with limit:
                self._waits.add(limit)
                return await wait
        except TimeoutError:
            if limit.expired():
                raise draining() from None
            raise
        finally:
            self._waits.discard(limit)
