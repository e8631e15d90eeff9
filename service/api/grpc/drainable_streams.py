"""Ends open streams when the server drains."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from service.domain.errors import Unavailable

T = TypeVar("T")

RETRY_AFTER_S = 0.5
"""Seconds after which a caller should reopen its stream on another node."""


def draining() -> Unavailable:
    """Return the error for streams that end because this node stops."""
    return Unavailable("this node is stopping; call again", reason="NODE_DRAINING", retry_after=RETRY_AFTER_S)


class DrainableStreams:
    """Registers the waits of all open streams. After `drain`, each wait ends with Unavailable."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self._draining = False

    def drain(self) -> None:
        """End every waiting stream now and every other stream at its next item."""
        self._draining = True
        now = asyncio.get_running_loop().time()
        for wait in tuple(self._waits):
            wait.reschedule(now)

    async def next_item(self, stream: AsyncGenerator[T, None]) -> T:
        """Return the next item. Raise StopAsyncIteration at the end and Unavailable when the server drains."""
        return await self.run_until_drained(lambda: anext(stream))

    async def run_until_drained(self, begin: Callable[[], Awaitable[T]]) -> T:
        """Return the result of the awaitable from `begin`. If the server drains first, cancel it, raise Unavailable."""
        # An awaitable that is ready at once would finish before its timeout is checked.
        if self._draining:
            raise draining()
        # A timeout without a deadline lets asyncio distinguish `drain` from a cancellation by the caller.
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
