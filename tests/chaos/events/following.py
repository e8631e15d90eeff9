"""A consumer of Watch as one should be: it keeps its last token, and goes on with it on whichever node answers."""

import asyncio
import hashlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from tests.service_process import error_info
from zap.v1 import watch_pb2 as pb
from zap.v1 import watch_pb2_grpc
from zap.v1.event_pb2 import Event

if TYPE_CHECKING:
    from zap.v1.watch_pb2_grpc import EventServiceAsyncStub

SILENCE = 12.0
"""Seconds without a response after which a node is given up: it owes a bookmark every 10."""
BEGIN = 4.0
"""Seconds until the first response."""
PAUSE = 0.05
"""Seconds before the next node is tried."""


@dataclass(frozen=True)
class Note:
    """What a consumer writes down of one event. `stream`: which of its streams it came by; `at` in Unix seconds.

    Message id and text are empty for what is no message.
    """

    stream: int
    session_id: str
    sequence: int
    fingerprint: str
    at: float
    message_id: str = ""
    text: str = ""


def note(stream: int, event: Event) -> Note:
    """Of an event that has just come."""
    bare = Event()
    bare.CopyFrom(event)
    # The same event may be told of with another token.
    bare.ClearField("resume_token")
    digest = hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()[:16]
    message = event.message_received
    return Note(stream, event.session_id, event.sequence, digest, time.time(), message.message_id, message.text)


class Following:
    """One consumer's way through the log, by as many streams as it takes."""

    def __init__(self, nodes: Sequence[str], session_ids: Sequence[str] = (), token: str = "", first: int = 0) -> None:
        """`nodes`: addresses. `token`: where to begin; if empty, with the oldest event. `first`: node to begin at."""
        self._nodes = nodes
        self._session_ids = session_ids
        self._token = token
        self._first = first
        self.ends: Counter[str] = Counter()
        """Why streams ended."""

    async def responses(self) -> AsyncGenerator[tuple[int, pb.WatchResponse], None]:
        """For ever: the number of a stream, and what it gave. Raises AioRpcError for what does not pass by itself."""
        for stream in itertools.count():
            address = self._nodes[(self._first + stream) % len(self._nodes)]
            async with grpc.aio.insecure_channel(address) as channel:
                call = _stub(channel).Watch(self._request())
                patience = BEGIN
                try:
                    while isinstance(response := await asyncio.wait_for(call.read(), patience), pb.WatchResponse):
                        self._token, patience = response.resume_token, SILENCE
                        yield stream, response
                    raise AssertionError("a stream ended with OK")
                except TimeoutError:
                    self.ends["silence"] += 1
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    self.ends[_reason(error)] += 1
                finally:
                    call.cancel()
            await asyncio.sleep(PAUSE)

    def _request(self) -> pb.WatchRequest:
        if self._token:
            return pb.WatchRequest(session_ids=self._session_ids, resume_token=self._token)
        return pb.WatchRequest(session_ids=self._session_ids, from_start=True)


def _stub(channel: grpc.aio.Channel) -> "EventServiceAsyncStub":
    return watch_pb2_grpc.EventServiceStub(channel)


def _reason(error: grpc.aio.AioRpcError) -> str:
    try:
        return str(error_info(error).reason)
    except AssertionError:
        # Made by gRPC itself: the node is not there, or is there no more.
        return "connection lost"
