"""Connects zapctl to a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from service.cli.failures import explained
from zap.v1.contact_pb2_grpc import ContactServiceStub
from zap.v1.group_service_pb2_grpc import GroupServiceStub
from zap.v1.media_pb2_grpc import MediaServiceStub
from zap.v1.message_pb2_grpc import MessageServiceStub
from zap.v1.session_pb2_grpc import SessionServiceStub
from zap.v1.watch_pb2_grpc import EventServiceStub

CALL_TIMEOUT_S = 60.0
"""Deadline of a unary call, in seconds."""
_KEEPALIVE = (("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000))
"""Detects a lost server during a stream, which can be silent for long."""


@dataclass(frozen=True)
class ServerConnection:
    """Holds a server's address and the token to send, and opens its services."""

    address: str
    token: str = field(repr=False)
    as_json: bool

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of every call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    @contextmanager
    def sessions(self) -> Iterator[SessionServiceStub]:
        """Open the SessionService; an error is explained on stderr and ends the program."""
        with explained(), grpc.insecure_channel(self.address) as channel:
            yield SessionServiceStub(channel)

    @contextmanager
    def messages(self) -> Iterator[MessageServiceStub]:
        """Open the MessageService; an error is explained on stderr and ends the program."""
        with explained(), grpc.insecure_channel(self.address) as channel:
            yield MessageServiceStub(channel)

    @contextmanager
    def contacts(self) -> Iterator[ContactServiceStub]:
        """Open the ContactService; an error is explained on stderr and ends the program."""
        with explained(), grpc.insecure_channel(self.address) as channel:
            yield ContactServiceStub(channel)

    @contextmanager
    def media(self) -> Iterator[MediaServiceStub]:
        """Open the MediaService; an error is explained on stderr and ends the program."""
        with explained(), grpc.insecure_channel(self.address, options=_KEEPALIVE) as channel:
            yield MediaServiceStub(channel)

    @contextmanager
    def groups(self) -> Iterator[GroupServiceStub]:
        """Open the GroupService; an error is explained on stderr and ends the program."""
        with explained(), grpc.insecure_channel(self.address) as channel:
            yield GroupServiceStub(channel)

    @contextmanager
    def events(self) -> Iterator[EventServiceStub]:
        """Open the EventService; the caller handles errors and may retry."""
        with grpc.insecure_channel(self.address, options=_KEEPALIVE) as channel:
            yield EventServiceStub(channel)

    def call(self, method: Any, request: Any) -> Any:
        """Return the response of a unary call."""
        return method(request, metadata=self.metadata, timeout=CALL_TIMEOUT_S)
