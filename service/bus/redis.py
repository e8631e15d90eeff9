"""Publishes events and hints on Redis, and hears the hints of other nodes.

One task writes from a bounded queue, in order; when Redis is away the oldest live events are dropped (they are in the
log) and counted. Hints do not wait in it: one about each session is as good as many. Nothing here ever raises or waits
towards the core.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.bus.wakeups import WakeupHub
from service.domain.events import Event

log = structlog.get_logger(__name__)

CHANNEL = "zap:events:{session_id}"
"""The contract's channel of one session's events."""
WAKEUPS = "zap:wakeups"
"""Between nodes: ids of sessions about which something changed."""
QUEUE = 10_000
"""Live events that wait for Redis at most."""
RETRY = 1.0
"""Seconds between two tries to reach Redis."""

CANCEL_AGAIN = 0.1
"""Seconds between two cancellations of a task that did not hear the first."""

AWAY = (RedisError, OSError, TimeoutError)


class RedisUrlUnusable(Exception):
    """REDIS_URL says something that the client does not understand; the message says what."""


class RedisBus:
    """ports.Publisher on Redis; feeds the hub of this process."""

    def __init__(self, url: str, hub: WakeupHub, to_json: Callable[[Event], str]) -> None:
        try:
            self._redis = Redis.from_url(url, socket_connect_timeout=3, socket_timeout=5, health_check_interval=15)
        except ValueError as error:
            raise RedisUrlUnusable(f"REDIS_URL: cannot be used: {error}") from error
        self._hub = hub
        self._to_json = to_json
        self._events: deque[Event] = deque(maxlen=QUEUE)
        #: Sessions about which a hint is to be published, in order: a dict has no doubles.
        self._hints: dict[str, None] = {}
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._tasks: list[asyncio.Task[None]] = []
        self.dropped = 0
        """Live events that were not published because Redis was away too long."""

    def start(self) -> None:
        """Begin to publish and to listen; Redis need not be there yet."""
        self._tasks = [asyncio.create_task(self._publish()), asyncio.create_task(self._listen())]

    async def close(self) -> None:
        """Publish what waits, for a moment, and disconnect."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._emptied.wait()
        while running := [task for task in self._tasks if not task.done()]:
            # More than once if need be: redis-py sends under a wait_for, which can swallow a cancellation.
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=CANCEL_AGAIN)
        await self._redis.aclose()

    def publish(self, events: Sequence[Event]) -> None:
        """Have consumers told."""
        self.dropped += max(0, len(self._events) + len(events) - QUEUE)
        self._events.extend(events)
        self._fill()

    def wake(self, session_id: str) -> None:
        """Have whoever waits for something about this session look again, here and on other nodes."""
        self._hub.wake(session_id)
        self._hints[session_id] = None
        self._fill()

    def _fill(self) -> None:
        self._emptied.clear()
        self._filled.set()

    async def _publish(self) -> None:
        away = False
        while True:
            if not self._events and not self._hints:
                self._emptied.set()
                self._filled.clear()
                await self._filled.wait()
            try:
                await self._publish_next()
            except AWAY as error:
                if not away:
                    log.warning("Redis (REDIS_URL) is away; live events wait.", cause=str(error))
                away = True
                await asyncio.sleep(RETRY)
                continue
            if away:
                log.info("Redis is back.", dropped=self.dropped)
            away = False

    async def _publish_next(self) -> None:
        """A hint if there is one: what it is about is committed, and somebody waits."""
        if self._hints:
            session_id = next(iter(self._hints))
            # Before it is on its way: a hint that comes meanwhile is about something else.
            del self._hints[session_id]
            await self._redis.publish(WAKEUPS, session_id)
            return
        event = self._events[0]
        await self._redis.publish(CHANNEL.format(session_id=event.session_id), self._to_json(event))
        # The queue may have dropped the very event while it was on its way.
        if self._events and self._events[0] is event:
            self._events.popleft()

    async def _listen(self) -> None:
        away = False
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(WAKEUPS)
                    away = False
                    async for message in pubsub.listen():
                        if message["type"] == "message":
                            # Whoever else writes there may write what he likes.
                            self._hub.wake(message["data"].decode(errors="replace"))
            except AWAY as error:
                if not away:
                    log.warning("Redis (REDIS_URL) is away; hints of other nodes are not heard.", cause=str(error))
                away = True
            await asyncio.sleep(RETRY)
