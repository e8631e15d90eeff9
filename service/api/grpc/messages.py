"""Serves zap.v1.MessageService: parses requests, calls the core, converts results."""

from service.api.grpc.context import Context, caller_of
from service.api.grpc.deadlines import remaining_time
from service.messaging.sender import MessageSender
from service.protocol import parsing
from service.protocol.messages import outbound_message
from zap.v1 import message_pb2 as pb
from zap.v1.message_pb2_grpc import MessageServiceServicer

NAME = pb.DESCRIPTOR.services_by_name["MessageService"].full_name
_SEND_TIMEOUT_S = 30.0
"""Seconds after which a send that WhatsApp has not acknowledged is OUTCOME_UNKNOWN."""


class MessageServicer(MessageServiceServicer):
    """Translates between the proto and `MessageSender`."""

    def __init__(self, sending: MessageSender) -> None:
        self._sending = sending

    async def Send(self, request: pb.SendRequest, context: Context) -> pb.Message:
        timeout = remaining_time(context, _SEND_TIMEOUT_S)
        new = parsing.new_message(request)
        return outbound_message(await self._sending.send(caller_of(context), request.session_id, new, timeout))

    async def Get(self, request: pb.GetRequest, context: Context) -> pb.Message:
        return outbound_message(await self._sending.get(caller_of(context), request.session_id, request.request_id))
