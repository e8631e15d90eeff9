"""The real gRPC server over the core in memory, on a loop and a thread of its own, for tests that block."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

import grpc
from prometheus_client import CollectorRegistry

from service.api.grpc.server import Server
from service.domain.media import MediaLimits
from service.media.http import MediaHttpClient
from service.telemetry.metrics import RpcMetrics
from tests.fakes.contact_store import FakeContactStore
from tests.fakes.core import FakeSending, FakeSessions, FakeWatching, core_of, fake_media

T = TypeVar("T")


class FakeService:
    """A server on a free port; a context manager."""

    def __init__(self, token: str = "", limits: MediaLimits | None = None, http: MediaHttpClient | None = None) -> None:
        self.limits, self.http = limits, http
        self.sessions = FakeSessions()
        self.sending = FakeSending(self.sessions)
        self.watching = FakeWatching()
        self.contacts = FakeContactStore(self.sessions.store)
        self.registry = CollectorRegistry()
        self.address = ""
        self._token = token
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake service", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.server = self.do(self._make)
        port = self.run(self.server.start())
        self.run(self.server.set_ready(True))
        self.address = f"127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.server.stop(0))
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def do(self, act: Callable[..., T], *arguments: Any) -> T:
        """The result of a plain function on the server's loop."""

        async def acting() -> T:
            return act(*arguments)

        return self.run(acting())

    def restart(self) -> None:
        """Another server at the same address, over the same core."""
        self.run(self.server.stop(0))
        self.registry = CollectorRegistry()
        self.server = self.do(self._make, self.address)
        self.run(self.server.start())
        self.run(self.server.set_ready(True))

    def channel(self) -> grpc.Channel:
        """A channel to it, that takes what a server may send."""
        return grpc.insecure_channel(self.address)

    def _make(self, listen: str = "127.0.0.1:0") -> Server:
        core = core_of(
            self.sessions,
            sending=self.sending,
            watching=self.watching,
            contacts=self.contacts,
            media=fake_media(self.sessions, self.limits, self.http),
        )
        return Server(core, listen=listen, token=self._token, metrics=RpcMetrics(self.registry))


async def _cancel_others() -> None:
    """End what is left on the loop, for example a send that a test holds."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
