"""Publishes events and hints on Redis, and hears the hints of other nodes.

One task writes from a bounded queue, in order; when Redis is away the oldest live events are dropped (they are in the
log) and counted. Hints do not wait in it: one about each session is as good as many. Nothing here ever raises or waits
towards the core.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from uuid import uuid4

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.bus.backlog import BATCH_EVENTS, Backlog
from service.bus.hub import LOG_TOPIC, WORK_TOPIC, WakeupHub
from service.domain.events import Event
from service.ports import Metrics

log = structlog.get_logger(__name__)

CHANNEL = "zap:events:{session_id}"
"""The contract's channel of one session's events."""
WAKEUPS = "zap:wakeups"
"""Between nodes: who says it, and the id of a session about which something changed, or WORK, or LOG."""
RECONNECT_INTERVAL_S = 1.0
"""Seconds between two tries to reach Redis."""
GATHER_S = 0.02
"""Seconds between two batches of events, so that under load several share a round trip."""

CANCEL_RETRY_S = 0.1
"""Seconds between two cancellations of a task that did not hear the first."""

CONNECTION_ERRORS = (RedisError, OSError, TimeoutError)


class RedisUrlUnusable(Exception):
    """REDIS_URL says something that the client does not understand; the message says what."""


class RedisBus:
    """ports.Publisher on Redis; feeds the hub of this process."""

    def __init__(
        self, url: str, hub: WakeupHub, to_json: Callable[[Event], str], metrics: Metrics | None = None
    ) -> None:
        try:
            self._redis = Redis.from_url(url, socket_connect_timeout=3, socket_timeout=5, health_check_interval=15)
        except ValueError as error:
            raise RedisUrlUnusable(f"REDIS_URL: cannot be used: {error}") from error
        self._hub = hub
        self._metrics = metrics or Metrics()
        #: Its own hints come back to it: the hub has heard them long before.
        self._name = uuid4().hex
        self._to_json = to_json
        self._events = Backlog()
        #: Sessions about which a hint is to be published, in order: a dict has no doubles.
        self._hints: dict[str, None] = {}
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._next_batch_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def dropped(self) -> int:
        """Live events that were not published because Redis was away too long."""
        return self._events.dropped

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
            await asyncio.wait(running, timeout=CANCEL_RETRY_S)
        await self._redis.aclose()

    def publish(self, events: Sequence[Event]) -> None:
        """Have consumers told."""
        if not events:
            return
        for event in events:
            self._metrics.event(event.payload.kind)
        is_first = not self._events
        self._events.extend(events)
        # Wakes those who read the log here. Other nodes hear of it when the batch is published.
        self._hub.wake(LOG_TOPIC)
        if is_first or self._events.has_batch:
            self._fill()

    def wake(self, session_id: str) -> None:
        """Have whoever waits for something about this session look again, here and on other nodes."""
        self._hub.wake(session_id)
        self._hints[session_id] = None
        self._fill()

    def reconcile(self) -> None:
        """Have those who claim and stop sessions look again, here and on other nodes."""
        self.wake(WORK_TOPIC)

    def _fill(self) -> None:
        self._emptied.clear()
        self._filled.set()

    async def _publish(self) -> None:
        away = False
        while True:
            await self._wait()
            try:
                await self._publish_next()
            except CONNECTION_ERRORS as error:
                if not away:
                    log.warning("Redis (REDIS_URL) is away; live events wait.", cause=str(error))
                away = True
                await asyncio.sleep(RECONNECT_INTERVAL_S)
                continue
            if away:
                log.info("Redis is back.", dropped=self.dropped)
            away = False

    async def _wait(self) -> None:
        """Wait until there is a hint, or a batch of events is due."""
        while not self._hints and (pause := self._seconds_until_batch) != 0:
            if pause is None:
                self._emptied.set()
            self._filled.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._filled.wait()

    @property
    def _seconds_until_batch(self) -> float | None:
        """Return the seconds until events are to be published; None if there are none."""
        if not self._events:
            return None
        now = asyncio.get_running_loop().time()
        return 0 if self._events.has_batch else max(0, self._next_batch_at - now)

    async def _publish_next(self) -> None:
        """Publish what waits, in two round trips: one for each event is more than a busy node can do.

        Hints go first, before events are encoded (a large one takes 14 ms): what they are about is committed, and
        others wait for it.
        """
        events = self._events.first() if self._seconds_until_batch == 0 else ()
        if events:
            self._next_batch_at = asyncio.get_running_loop().time() + GATHER_S
            self._hints[LOG_TOPIC] = None
        if hints := list(itertools.islice(self._hints, BATCH_EVENTS)):
            # Before they are on their way: a hint that comes meanwhile is about something else.
            for session_id in hints:
                del self._hints[session_id]
            await self._send((WAKEUPS, f"{self._name} {session_id}") for session_id in hints)
        if events:
            encoded = list(self._encoded(events))
            await self._send(encoded)
            self._events.dropped += len(events) - len(encoded)
            self._events.done(events)

    def _encoded(self, events: Iterable[Event]) -> Iterator[tuple[str, str]]:
        """Leave out what cannot be encoded: it would end all publishing."""
        for event in events:
            try:
                encoded = self._to_json(event)
            except Exception:
                log.exception(
                    "An event cannot be encoded; it is not published on Redis.",
                    session_id=event.session_id,
                    sequence=event.sequence,
                    event_id=event.id,
                    type=event.payload.kind,
                )
            else:
                yield CHANNEL.format(session_id=event.session_id), encoded

    async def _send(self, messages: Iterable[tuple[str, str]]) -> None:
        """In one round trip; each with its channel."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for channel, message in messages:
                pipeline.publish(channel, message)
            await pipeline.execute()

    def _hear(self, hint: str) -> None:
        """A hint, or what somebody else writes there: he may write what he likes."""
        name, _, session_id = hint.partition(" ")
        if name != self._name:
            self._hub.wake(session_id)

    async def _listen(self) -> None:
        away = False
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(WAKEUPS)
                    away = False
                    async for message in pubsub.listen():
                        if message["type"] == "message":
                            self._hear(message["data"].decode(errors="replace"))
            except CONNECTION_ERRORS as error:
                if not away:
                    log.warning("Redis (REDIS_URL) is away; hints of other nodes are not heard.", cause=str(error))
                away = True
            await asyncio.sleep(RECONNECT_INTERVAL_S)
