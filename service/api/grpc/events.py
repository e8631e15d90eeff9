"""Serves zap.v1.EventService: parses requests, calls the core, converts results."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import grpc
import structlog
from google.protobuf.message import DecodeError

from service.api.grpc.context import Context, caller_of
from service.domain.errors import ConsumerTooSlow
from service.domain.watch import Delivered, Step
from service.ports.eventlog import Watch
from service.protocol.watching import start_of, step_message, wanted_of
from zap.v1 import watch_pb2 as pb
from zap.v1.watch_pb2_grpc import EventServiceServicer

NAME = pb.DESCRIPTOR.services_by_name["EventService"].full_name

log = structlog.get_logger(__name__)

WRITE_TIMEOUT_S = 600.0
"""Default seconds in which a consumer must accept a response that is ready."""


class EventServicer(EventServiceServicer):
    """Translates between the proto and `Watch`."""

    def __init__(self, watch: Watch, unreadable: Callable[[], None], write_timeout_s: float = WRITE_TIMEOUT_S) -> None:
        """Take `unreadable`, called for each event that cannot be parsed."""
        self._watch = watch
        self._unreadable = unreadable
        self._write_timeout_s = write_timeout_s

    async def Watch(self, request: pb.WatchRequest, context: Context) -> None:  # type: ignore[override]
        """Write the responses here, with a timeout: a generator that waits for its caller cannot limit the wait."""
        async with aclosing(self._watch(wanted_of(request, caller_of(context)), start_of(request))) as steps:
            token = ""
            async for step in steps:
                response = self._response(step)
                try:
                    async with asyncio.timeout(self._write_timeout_s):
                        if response is not None:
                            await context.write(response)
                except grpc.aio.InternalError as error:
                    # The consumer has disconnected, and gRPC has not cancelled this task yet.
                    raise asyncio.CancelledError from error
                except TimeoutError:
                    raise _not_reading(token or step.token) from None
                token = step.token

    def _response(self, step: Step) -> pb.WatchResponse | None:
        """Return the response; None for an event that cannot be parsed, which must not end every stream reaching it."""
        try:
            return step_message(step)
        except DecodeError as error:
            cause = str(error)
        self._unreadable()
        if isinstance(step, Delivered):
            event = step.event
            log.error(
                "An event of the log cannot be parsed (zap.event.payload); this Watch stream skips it.",
                session_id=event.session_id,
                sequence=event.sequence,
                event_id=event.position.id,
                xid=event.position.xid,
                type=event.type,
                cause=cause,
            )
        return None


def _not_reading(token: str) -> ConsumerTooSlow:
    """Return the error that a consumer gets once it has read what is in flight. The node buffers nothing until then."""
    return ConsumerTooSlow(
        f"consumer did not read for too long: resume from {token}",
        metadata={"resume_token": token},
    )
