"""zap.v1.EventService: parse, call, convert."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.protocol.watching import start_of, step_message, wanted_of
from service.rpc.context import Context
from service.rpc.usecases import Watching
from zap.v1 import watch_pb2 as pb
from zap.v1.watch_pb2_grpc import EventServiceServicer

NAME = pb.DESCRIPTOR.services_by_name["EventService"].full_name


class EventServicer(EventServiceServicer):
    """Translates; the core decides."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncGenerator[pb.WatchResponse, None]:
        async with aclosing(self._watching.watch(wanted_of(request), start_of(request))) as steps:
            async for step in steps:
                yield step_message(step)
