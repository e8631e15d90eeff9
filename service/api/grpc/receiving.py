"""The one request of a call, which has a time to arrive."""

import asyncio
from contextlib import suppress
from typing import Any

import grpc

from service.api.grpc.context import Context
from service.api.grpc.errors import abort, status_of
from service.api.grpc.limits import READ_TIME
from service.domain.errors import FieldViolation, InvalidArgument, Unavailable

_NOTHING = InvalidArgument([FieldViolation("request", "is missing")], reason="MALFORMED_REQUEST")

_ending: set[asyncio.Task[None]] = set()
"""asyncio keeps only weak references to tasks."""


async def receive(context: Context, method: str, within: float = READ_TIME) -> bytes:
    """The request's bytes. If none comes, the call is ended here, with a status if its caller still listens.

    gRPC itself has told a caller whose request is too large (RESOURCE_EXHAUSTED).
    """
    # Not a timeout: gRPC would go on reading into what a cancelled read has freed. Ending the call ends the read.
    late = asyncio.get_running_loop().call_later(within, _end, context, method, within)
    try:
        raw: Any = await context.read()
    finally:
        late.cancel()
    if raw is grpc.aio.EOF:
        await abort(context, status_of(_NOTHING, method))
    return bytes(raw)


def _end(context: Context, method: str, within: float) -> None:
    error = Unavailable(
        f"the request did not arrive within {within:g} s after the call had begun; call again",
        reason="REQUEST_TOO_SLOW",
    )

    async def end() -> None:
        with suppress(grpc.aio.AbortError, grpc.aio.UsageError, asyncio.CancelledError):
            await abort(context, status_of(error, method))

    task = asyncio.create_task(end(), name="end-late-call")
    _ending.add(task)
    task.add_done_callback(_ending.discard)
