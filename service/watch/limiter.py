"""Limits the streams of a node, so that the memory they use has a bound."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.domain.errors import Unavailable
from service.domain.watch import Delivered, EventFilter, StartPosition, Step
from service.ports.eventlog import Watch
from service.ports.metrics import Metrics

RETRY_AFTER_S = 1.0
"""Seconds after which a refused caller may retry."""


class WatchLimiter:
    """Wraps Watch, for at most `max_streams` at once."""

    def __init__(self, watch: Watch, max_streams: int, metrics: Metrics | None = None) -> None:
        self._metrics = metrics or Metrics()
        self._watch = watch
        self._max_streams = max_streams
        self._streams = 0

    async def watch(self, wanted: EventFilter, start: StartPosition) -> AsyncGenerator[Step, None]:
        """Yield what Watch yields. Raises Unavailable too, if there are `max_streams` already."""
        if self._streams >= self._max_streams:
            raise Unavailable(
                f"this node serves its maximum of {self._max_streams} streams; watch on another node, or later",
                reason="TOO_MANY_STREAMS",
                metadata={"streams": str(self._max_streams)},
                retry_after=RETRY_AFTER_S,
            )
        self._streams += 1
        try:
            async with aclosing(self._watch(wanted, start)) as steps:
                # A refused stream ends before its first step and is not counted.
                yield await anext(steps)
                with self._metrics.open_stream():
                    async for step in steps:
                        if isinstance(step, Delivered):
                            self._metrics.delivered()
                        yield step
        finally:
            self._streams -= 1
