"""Publishes events and hints on Redis, and receives the hints of other nodes.

One task publishes events from a bounded queue, in order. While Redis is away the oldest live events are dropped and
counted; the log has them. Hints are kept apart from the queue, one for each session. Callers in the core never wait and
never see an error.
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
from service.ports.metrics import Metrics

log = structlog.get_logger(__name__)

CHANNEL = "zap:events:{session_id}"
"""Redis channel of one session's events; part of the public contract."""
HINT_CHANNEL = "zap:wakeups"
"""Redis channel between nodes. A hint is the sender's name and a session id, WORK_TOPIC or LOG_TOPIC."""
RECONNECT_INTERVAL_S = 1.0
"""Seconds between two attempts to reach Redis."""
GATHER_S = 0.02
"""Seconds between two batches of events, so that under load several events share a round trip."""
CANCEL_RETRY_S = 0.1
"""Seconds between two cancellations of a task that swallowed the first one."""

CONNECTION_ERRORS = (RedisError, OSError, TimeoutError)


class RedisUrlUnusable(Exception):
    """The client cannot parse REDIS_URL; the message says why."""


class RedisBus:
    """Publishes on Redis (ports.bus.Publisher) and passes hints to the hub of this process."""

    def __init__(
        self, url: str, hub: WakeupHub, to_json: Callable[[Event], str], metrics: Metrics | None = None
    ) -> None:
        try:
            self._redis = Redis.from_url(url, socket_connect_timeout=3, socket_timeout=5, health_check_interval=15)
        except ValueError as error:
            raise RedisUrlUnusable(f"REDIS_URL: cannot be used: {error}") from error
        self._hub = hub
        self._metrics = metrics or Metrics()
        #: Identifies this node's hints, which Redis sends back and the hub already has.
        self._name = uuid4().hex
        self._to_json = to_json
        self._events = Backlog()
        #: Topics to publish a hint about, as an ordered set.
        self._hints: dict[str, None] = {}
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._next_batch_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def dropped(self) -> int:
        """Return how many live events were dropped, because Redis was away or they could not be encoded."""
        return self._events.dropped

    def start(self) -> None:
        """Start to publish and to listen; Redis may still be unavailable."""
        self._tasks = [asyncio.create_task(self._publish()), asyncio.create_task(self._listen())]

    async def close(self) -> None:
        """Publish what waits, for at most a second, and disconnect."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._emptied.wait()
        while running := [task for task in self._tasks if not task.done()]:
            # redis-py uses wait_for, which can swallow a cancellation, so cancel until the tasks end.
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=CANCEL_RETRY_S)
        await self._redis.aclose()

    def publish(self, events: Sequence[Event]) -> None:
        """Queue committed events for consumers, and notify the readers of the log on this node."""
        if not events:
            return
        for event in events:
            self._metrics.event(event.payload.kind)
        is_first = not self._events
        self._events.extend(events)
        # Other nodes get this hint together with the batch.
        self._hub.wake(LOG_TOPIC)
        if is_first or self._events.has_batch:
            self._notify_publisher()

    def wake(self, session_id: str) -> None:
        """Notify the listeners of a session, here and on other nodes."""
        self._hub.wake(session_id)
        self._hints[session_id] = None
        self._notify_publisher()

    def notify_work(self) -> None:
        """Notify the listeners for work, here and on other nodes."""
        self.wake(WORK_TOPIC)

    def _notify_publisher(self) -> None:
        self._emptied.clear()
        self._filled.set()

    async def _publish(self) -> None:
        away = False
        while True:
            await self._wait_until_due()
            try:
                await self._publish_next()
            except CONNECTION_ERRORS as error:
                if not away:
                    log.warning("Redis (REDIS_URL) is away; live events are queued.", cause=str(error))
                away = True
                await asyncio.sleep(RECONNECT_INTERVAL_S)
                continue
            if away:
                log.info("Redis is back.", dropped=self.dropped)
            away = False

    async def _wait_until_due(self) -> None:
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
        """Publish hints and one batch of events, in one round trip each.

        Hints go first, before events are encoded (a large one takes 14 ms), because other nodes wait for them.
        """
        events = self._events.first() if self._seconds_until_batch == 0 else ()
        if events:
            self._next_batch_at = asyncio.get_running_loop().time() + GATHER_S
            self._hints[LOG_TOPIC] = None
        if hints := list(itertools.islice(self._hints, BATCH_EVENTS)):
            # Removed before sending: a hint that arrives meanwhile reports a later change.
            for session_id in hints:
                del self._hints[session_id]
            await self._send((HINT_CHANNEL, f"{self._name} {session_id}") for session_id in hints)
        if events:
            encoded = list(self._encoded(events))
            await self._send(encoded)
            self._events.dropped += len(events) - len(encoded)
            self._events.done(events)

    def _encoded(self, events: Iterable[Event]) -> Iterator[tuple[str, str]]:
        """Yield channel and JSON of each event; leave out events that cannot be encoded."""
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
        """Publish pairs of channel and message in one round trip."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for channel, message in messages:
                pipeline.publish(channel, message)
            await pipeline.execute()

    def _on_hint(self, hint: str) -> None:
        """Pass a hint of another node to the hub; any text is accepted, since other clients can publish too."""
        name, _, session_id = hint.partition(" ")
        if name != self._name:
            self._hub.wake(session_id)

    async def _listen(self) -> None:
        away = False
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(HINT_CHANNEL)
                    away = False
                    async for message in pubsub.listen():
                        if message["type"] == "message":
                            self._on_hint(message["data"].decode(errors="replace"))
            except CONNECTION_ERRORS as error:
                if not away:
                    log.warning("Redis (REDIS_URL) is away; hints of other nodes are missed.", cause=str(error))
                away = True
            await asyncio.sleep(RECONNECT_INTERVAL_S)
