"""A consumer of EventService.Watch: it keeps what it was given and where it was, and goes on on any node."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from zap.v1 import event_pb2, watch_pb2, watch_pb2_grpc

if TYPE_CHECKING:
    from zap.v1.watch_pb2_grpc import EventServiceAsyncStub

LARGEST_RESPONSE = 64 * 1024 * 1024


class Consumer:
    """`Consumer(from_start=True)`, `Consumer(session_ids=[…])`: what it asks for the first time."""

    def __init__(self, **asked: Any) -> None:
        self._request = watch_pb2.WatchRequest(**asked)
        self._came = asyncio.Event()
        self.events: list[event_pb2.Event] = []
        """Those that it had not had before, in the order in which they came."""
        self.repeated = 0
        """Those that it had."""
        self.bookmarks: list[watch_pb2.Bookmark] = []
        self._known: set[tuple[str, int]] = set()

    @property
    def token(self) -> str:
        """Of the last response."""
        return self._request.resume_token

    def resume_at(self, token: str) -> None:
        """Where to begin next."""
        self._request.resume_token = token

    async def watch(self, address: str, pause: float = 0.0) -> None:
        """Follow a node's stream from where it is, at its own pace (`pause` s for a response). Raises AioRpcError."""
        options = [("grpc.max_receive_message_length", LARGEST_RESPONSE)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            stub: EventServiceAsyncStub = watch_pb2_grpc.EventServiceStub(channel)
            async for response in stub.Watch(self._request):
                self._take(response)
                await asyncio.sleep(pause)
        raise AssertionError("the stream ended OK, which it never does")

    @asynccontextmanager
    async def watching(self, address: str, pause: float = 0.0) -> "AsyncIterator[asyncio.Task[None]]":
        """Follow it while the block lasts, from its first response on."""
        responses = len(self.events) + len(self.bookmarks) + self.repeated
        task = asyncio.create_task(self.watch(address, pause))
        try:
            await self.wait_until(
                lambda: task.done() or len(self.events) + len(self.bookmarks) + self.repeated > responses
            )
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await task

    async def wait_until(self, is_there: Callable[[], bool], timeout: float = 20.0) -> None:
        """Until something holds, asked again at each response and now and then; TimeoutError says what there is."""
        deadline = time.monotonic() + timeout
        while not is_there():
            if time.monotonic() > deadline:
                had = {session_id: self.sequences(session_id) for session_id, _ in self._known}
                raise TimeoutError(f"not in {timeout} s, but {had}")
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), 0.1)

    async def wait_for(self, session_id: str, sequence: int, timeout: float = 20.0) -> None:
        """Until it has had an event."""
        await self.wait_until(lambda: (session_id, sequence) in self._known, timeout)

    def sequences(self, session_id: str) -> list[int]:
        """Of a session's events, in the order in which they came."""
        return [event.sequence for event in self.events if event.session_id == session_id]

    def texts(self, session_id: str) -> list[str]:
        """Of a session's messages, in the order in which they came."""
        return [e.message_received.text for e in self.events if e.session_id == session_id and e.message_received.text]

    def _take(self, response: watch_pb2.WatchResponse) -> None:
        if response.HasField("bookmark"):
            self.bookmarks.append(response.bookmark)
        elif (key := (response.event.session_id, response.event.sequence)) in self._known:
            self.repeated += 1
        else:
            self._known.add(key)
            self.events.append(response.event)
        self._request.resume_token = response.resume_token
        self._came.set()
