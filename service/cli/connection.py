"""How zapctl reaches a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from service.cli.failures import explained
from zap.v1.message_pb2_grpc import MessageServiceStub
from zap.v1.session_pb2_grpc import SessionServiceStub
from zap.v1.watch_pb2_grpc import EventServiceStub

CALL_TIMEOUT_S = 60.0
"""Seconds for a call that answers once."""
_WATCHFUL = (("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000))
"""A stream can be silent for long: a machine that vanished is to be noticed all the same."""


@dataclass(frozen=True)
class Server:
    """A server, and what it takes to be admitted."""

    address: str
    token: str = field(repr=False)
    as_json: bool

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    @contextmanager
    def sessions(self) -> Iterator[SessionServiceStub]:
        """Its SessionService; errors end the program in words."""
        with explained(), grpc.insecure_channel(self.address) as channel:
            yield SessionServiceStub(channel)

    @contextmanager
    def messages(self) -> Iterator[MessageServiceStub]:
        """Its MessageService; errors end the program in words."""
        with explained(), grpc.insecure_channel(self.address) as channel:
            yield MessageServiceStub(channel)

    @contextmanager
    def events(self) -> Iterator[EventServiceStub]:
        """Its EventService; errors are the caller's, who may try again."""
        with grpc.insecure_channel(self.address, options=_WATCHFUL) as channel:
            yield EventServiceStub(channel)

    def call(self, method: Any, request: Any) -> Any:
        """The answer to a call that answers once."""
        return method(request, metadata=self.metadata, timeout=CALL_TIMEOUT_S)
