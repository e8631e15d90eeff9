"""Receives the requests of a call, each within a time limit."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

import grpc
from google.rpc.status_pb2 import Status

from service.api.grpc.context import Context
from service.api.grpc.errors import abort, status_of
from service.api.grpc.limits import READ_TIME
from service.domain.errors import FieldViolation, InvalidArgument, Unavailable

DISCARD_S = 1.0
"""Seconds for which a refused stream of requests is read on."""

S = TypeVar("S")
T = TypeVar("T")

_MISSING_REQUEST = InvalidArgument([FieldViolation("request", "is missing")], reason="MALFORMED_REQUEST")

_ending: set[asyncio.Task[None]] = set()
"""References that keep the tasks alive: asyncio has only weak ones."""


async def receive(context: Context, method: str, within: float = READ_TIME) -> bytes:
    """Return the request's bytes. If none arrive, end the call, with a status if the caller is still connected.

    gRPC itself answers a request that is too large with RESOURCE_EXHAUSTED.
    """
    raw = await _read(context, method, within)
    if raw is None:
        await abort(context, status_of(_MISSING_REQUEST, method))
    return raw or b""


class RequestStream:
    """Iterates over the requests of a stream, the first of which has been received already.

    Each further one must arrive within the limit after it was asked for. Do not cancel this to bound its time. No
    request is kept until the next one arrives: with chunks of a megabyte, each copy counts.
    """

    def __init__(self, first: bytes, context: Context, method: str, within: float = READ_TIME) -> None:
        self._first: bytes | None = first
        self._context = context
        self._method = method
        self._within = within

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        raw, self._first = self._first, None
        if raw is None:
            raw = await _read(self._context, self._method, self._within)
        if raw is None:
            raise StopAsyncIteration
        return raw


class ConvertedStream(Generic[S, T]):
    """Iterates over what a function makes of each item, and keeps none of them, unlike an asynchronous generator."""

    def __init__(self, convert: Callable[[S], T], items: AsyncIterator[S]) -> None:
        self._convert = convert
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return self._convert(await anext(self._items))


async def discard_rest(context: Context, status: Status) -> None:
    """Take the further requests of a stream that ends with this status, for DISCARD_S at most.

    A caller whose write is cut off by the status may not see it: grpc.aio then shows INTERNAL
    (https://github.com/grpc/grpc/issues/36066).
    """
    timer = asyncio.get_running_loop().call_later(DISCARD_S, _end, context, status)
    try:
        while await context.read() is not grpc.aio.EOF:
            pass
    finally:
        timer.cancel()


async def _read(context: Context, method: str, within: float) -> bytes | None:
    """Return the next request, or None at the end. If it does not arrive in time, end the call."""
    # End the call, not the read: gRPC would keep reading into memory that a cancelled read has freed.
    timer = asyncio.get_running_loop().call_later(within, _end, context, status_of(_too_slow(within), method))
    try:
        raw: Any = await context.read()
    finally:
        timer.cancel()
    return None if raw is grpc.aio.EOF else bytes(raw)


def _too_slow(within: float) -> Unavailable:
    return Unavailable(
        f"the request, or the next one of a stream, did not arrive within {within:g} s; call again",
        reason="REQUEST_TOO_SLOW",
    )


def _end(context: Context, status: Status) -> None:
    async def end() -> None:
        with suppress(grpc.aio.AbortError, grpc.aio.UsageError, asyncio.CancelledError):
            await abort(context, status)

    task = asyncio.create_task(end(), name="end-late-call")
    _ending.add(task)
    task.add_done_callback(_ending.discard)
