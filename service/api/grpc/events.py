"""zap.v1.EventService: parse, call, convert."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import grpc
import structlog
from google.protobuf.message import DecodeError

from service.api.grpc.context import Context
from service.domain.errors import ConsumerTooSlow
from service.domain.watch import Delivered, Step
from service.ports import Watch
from service.protocol.watching import start_of, step_message, wanted_of
from zap.v1 import watch_pb2 as pb
from zap.v1.watch_pb2_grpc import EventServiceServicer

NAME = pb.DESCRIPTOR.services_by_name["EventService"].full_name

log = structlog.get_logger(__name__)

STANDSTILL = 600.0
"""Seconds, unless said otherwise, in which a consumer must take a response that waits for him."""


class EventServicer(EventServiceServicer):
    """Translates; the core decides."""

    def __init__(self, watch: Watch, unreadable: Callable[[], None], standstill: float = STANDSTILL) -> None:
        """`unreadable`: hears of each event that a stream leaves out because its payload cannot be parsed."""
        self._watch = watch
        self._unreadable = unreadable
        self._standstill = standstill

    async def Watch(self, request: pb.WatchRequest, context: Context) -> None:  # type: ignore[override]
        """Writes its responses by itself: a generator that waits for its caller hears of nothing else."""
        async with aclosing(self._watch(wanted_of(request), start_of(request))) as steps:
            token = ""
            async for step in steps:
                response = self._response(step)
                try:
                    async with asyncio.timeout(self._standstill):
                        if response is not None:
                            await context.write(response)
                except grpc.aio.InternalError as error:
                    # He has gone, and it is not cancelled yet.
                    raise asyncio.CancelledError from error
                except TimeoutError:
                    raise _stands_still(token or step.token) from None
                token = step.token

    def _response(self, step: Step) -> pb.WatchResponse | None:
        """Return None for an event that cannot be read: it would end each stream that comes to it, for good."""
        try:
            return step_message(step)
        except DecodeError as error:
            cause = str(error)
        self._unreadable()
        if isinstance(step, Delivered):
            event = step.event
            log.error(
                "An event of the log cannot be parsed (zap.event.payload); this stream of Watch leaves it out.",
                session_id=event.session_id,
                sequence=event.sequence,
                event_id=event.place.id,
                xid=event.place.xid,
                type=event.type,
                cause=cause,
            )
        return None


def _stands_still(token: str) -> ConsumerTooSlow:
    """He hears it when he has taken what is on its way; until then nothing of his is kept here."""
    return ConsumerTooSlow(
        f"you have not taken anything for too long: {token} resumes after the last response that you were given",
        metadata={"resume_token": token},
    )
