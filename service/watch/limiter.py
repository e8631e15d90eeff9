"""How many watch one node at once: what it keeps in memory for them has a bound."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.domain.errors import Unavailable
from service.domain.watch import Delivered, EventFilter, StartPosition, Step
from service.ports import Metrics, Watch

RETRY_AFTER = 1.0
"""Seconds after which one who found no place may ask again."""


class WatchLimiter:
    """Watching, for so many at once."""

    def __init__(self, watch: Watch, most: int, metrics: Metrics | None = None) -> None:
        self._metrics = metrics or Metrics()
        self._watch = watch
        self._most = most
        self._streams = 0

    async def watch(self, wanted: EventFilter, start: StartPosition) -> AsyncGenerator[Step, None]:
        """See Watching. Raises Unavailable too, if there is no place."""
        if self._streams >= self._most:
            raise Unavailable(
                f"this node serves as many streams as it may ({self._most}); watch on another node, or later",
                reason="TOO_MANY_STREAMS",
                metadata={"streams": str(self._most)},
                retry_after=RETRY_AFTER,
            )
        self._streams += 1
        try:
            async with aclosing(self._watch(wanted, start)) as steps:
                # Up to here it may be refused.
                yield await anext(steps)
                with self._metrics.open_stream():
                    async for step in steps:
                        if isinstance(step, Delivered):
                            self._metrics.given()
                        yield step
        finally:
            self._streams -= 1
