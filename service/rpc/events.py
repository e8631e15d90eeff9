"""zap.v1.EventService: parse, call, convert."""

import asyncio
from contextlib import aclosing

import grpc

from service.domain.errors import ConsumerTooSlow
from service.ports import Watch
from service.protocol.watching import start_of, step_message, wanted_of
from service.rpc.context import Context
from zap.v1 import watch_pb2 as pb
from zap.v1.watch_pb2_grpc import EventServiceServicer

NAME = pb.DESCRIPTOR.services_by_name["EventService"].full_name

STANDSTILL = 600.0
"""Seconds, unless said otherwise, in which a consumer must take a response that waits for him."""


class EventServicer(EventServiceServicer):
    """Translates; the core decides."""

    def __init__(self, watch: Watch, standstill: float = STANDSTILL) -> None:
        self._watch = watch
        self._standstill = standstill

    async def Watch(self, request: pb.WatchRequest, context: Context) -> None:  # type: ignore[override]
        """Writes its responses by itself: a generator that waits for its caller hears of nothing else."""
        async with aclosing(self._watch(wanted_of(request), start_of(request))) as steps:
            token = ""
            async for step in steps:
                try:
                    async with asyncio.timeout(self._standstill):
                        await context.write(step_message(step))
                except grpc.aio.InternalError as error:
                    # He has gone, and it is not cancelled yet.
                    raise asyncio.CancelledError from error
                except TimeoutError:
                    raise _stands_still(token or step.token) from None
                token = step.token


def _stands_still(token: str) -> ConsumerTooSlow:
    """He hears it when he has taken what is on its way; until then nothing of his is kept here."""
    return ConsumerTooSlow(
        f"you have not taken anything for too long: {token} resumes after the last response that you were given",
        metadata={"resume_token": token},
    )
