"""Receives the requests of a call, each within a time limit."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import grpc

from service.api.grpc.context import Context
from service.api.grpc.errors import abort, status_of
from service.api.grpc.limits import READ_TIME
from service.domain.errors import FieldViolation, InvalidArgument, Unavailable

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


async def receive_rest(context: Context, method: str, within: float = READ_TIME) -> AsyncGenerator[bytes, None]:
    """Yield the further requests of a stream, each of which must arrive within the limit after the one before is used.

    Do not cancel this to bound its time.
    """
    while (raw := await _read(context, method, within)) is not None:
        yield raw


async def _read(context: Context, method: str, within: float) -> bytes | None:
    """Return the next request, or None at the end. If it does not arrive in time, end the call."""
    # End the call, not the read: gRPC would keep reading into memory that a cancelled read has freed.
    timer = asyncio.get_running_loop().call_later(within, _end, context, method, within)
    try:
        raw: Any = await context.read()
    finally:
        timer.cancel()
    return None if raw is grpc.aio.EOF else bytes(raw)


def _end(context: Context, method: str, within: float) -> None:
    error = Unavailable(
        f"the request, or the next one of a stream, did not arrive within {within:g} s; call again",
        reason="REQUEST_TOO_SLOW",
    )

    async def end() -> None:
        with suppress(grpc.aio.AbortError, grpc.aio.UsageError, asyncio.CancelledError):
            await abort(context, status_of(error, method))

    task = asyncio.create_task(end(), name="end-late-call")
    _ending.add(task)
    task.add_done_callback(_ending.discard)
