"""What consumers hear: the events that are published on Redis, gathered from the moment of subscription on."""

import asyncio
import contextlib
import json
import time
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis

JsonEvent = dict[str, Any]


class LiveEvents:
    """`async with LiveEvents(url) as live:` gathers; `live.wait_for(...)` waits for one."""

    def __init__(self, redis_url: str) -> None:
        self._redis = Redis.from_url(redis_url)
        self._pubsub = self._redis.pubsub()
        self._gathering: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self.texts: list[str] = []
        """Everything on every channel, as it was published."""
        self.events: list[JsonEvent] = []

    async def __aenter__(self) -> Self:
        await self._pubsub.psubscribe("*")
        self._gathering = asyncio.create_task(self._gather())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._gathering
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]
        await self._redis.aclose()

    async def _gather(self) -> None:
        async for message in self._pubsub.listen():
            if message["type"] != "pmessage":
                continue
            text = message["data"].decode()
            self.texts.append(text)
            channel = message["channel"].decode()
            if channel.startswith("zap:events:"):
                event = json.loads(text)
                if event["sessionId"] != channel.removeprefix("zap:events:"):
                    raise AssertionError(f"an event of {event['sessionId']} on {channel}")
                self.events.append(event)
            self._arrived.set()

    def of(self, session_id: str, payload: str) -> list[JsonEvent]:
        """The events of one session with this payload (its JSON name), in order."""
        return [event for event in self.events if event["sessionId"] == session_id and payload in event]

    async def wait_for(self, session_id: str, payload: str, timeout: float = 15.0, **fields: object) -> JsonEvent:
        """The first event of this session whose payload has these fields; past ones count."""
        deadline = time.monotonic() + timeout
        while True:
            self._arrived.clear()
            for event in self.of(session_id, payload):
                if all(event[payload].get(name) == value for name, value in fields.items()):
                    return event
            try:
                await asyncio.wait_for(self._arrived.wait(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise TimeoutError(f"no {payload} {fields} of {session_id} in {timeout} s, but {self.events}") from None
