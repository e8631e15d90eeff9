"""Publishes events and hints on Redis, and hears the hints of other nodes.

One task writes from a bounded queue, in order; when Redis is away the oldest live events are dropped (they are in the
log) and counted. Nothing here ever raises or waits towards the core.
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
        self._queue: deque[tuple[str, str | Event]] = deque(maxlen=QUEUE)
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._tasks: list[asyncio.Task[None]] = []
        self.dropped = 0
        """Live events that were not published because Redis was away too long."""

    async def ping(self) -> None:
        """Raises what redis-py raises: who starts the service wants to know exactly."""
        await self._redis.ping()

    def start(self) -> None:
        """Begin to publish and to listen; Redis need not be there yet."""
        self._tasks = [asyncio.create_task(self._publish()), asyncio.create_task(self._listen())]

    async def close(self) -> None:
        """Publish what waits, for a moment, and disconnect."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._emptied.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._redis.aclose()

    def publish(self, events: Sequence[Event]) -> None:
        """Have consumers told."""
        for event in events:
            self._put(CHANNEL.format(session_id=event.session_id), event)

    def wake(self, session_id: str) -> None:
        """Have whoever waits for something about this session look again, here and on other nodes."""
        self._hub.wake(session_id)
        self._put(WAKEUPS, session_id)

    def _put(self, channel: str, item: str | Event) -> None:
        if len(self._queue) == QUEUE:
            self.dropped += 1
        self._queue.append((channel, item))
        self._emptied.clear()
        self._filled.set()

    async def _publish(self) -> None:
        away = False
        while True:
            if not self._queue:
                self._emptied.set()
                self._filled.clear()
                await self._filled.wait()
            channel, item = self._queue[0]
            try:
                await self._redis.publish(channel, item if isinstance(item, str) else self._to_json(item))
            except AWAY as error:
                if not away:
                    log.warning("Redis (REDIS_URL) is away; live events wait.", cause=str(error))
                away = True
                await asyncio.sleep(RETRY)
                continue
            if away:
                log.info("Redis is back.", dropped=self.dropped)
            away = False
            # The queue may have dropped the very item while it was on its way.
            if self._queue and self._queue[0] == (channel, item):
                self._queue.popleft()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(WAKEUPS)
                    async for message in pubsub.listen():
                        if message["type"] == "message":
                            self._hub.wake(message["data"].decode())
            except AWAY as error:
                log.debug("Not listening to Redis now.", cause=str(error))
            await asyncio.sleep(RETRY)
