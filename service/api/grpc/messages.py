"""Serves zap.v1.MessageService: parses requests, calls the core, converts results."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from service.api.grpc.context import Context, caller_of
from service.api.grpc.deadlines import remaining_time
from service.domain.records import MessagePosition, NewMessage, OutboundMessage
from service.messaging.sender import MessageSender
from service.protocol import sending
from service.protocol.message_list import message_page, message_page_token
from service.protocol.messages import outbound_message
from service.sessions.process_calls import ProcessCalls
from zap.v1 import message_pb2 as pb
from zap.v1.message_pb2_grpc import MessageServiceServicer

NAME = pb.DESCRIPTOR.services_by_name["MessageService"].full_name
_SEND_TIMEOUT_S = 30.0
"""Seconds after which a call is answered with ACCEPTED if WhatsApp has not acknowledged the message."""
_CALL_TIMEOUT_S = 10.0

_RequestT = TypeVar("_RequestT", pb.SendRequest, pb.EditRequest, pb.RevokeRequest, pb.PinInChatRequest)


class MessageServicer(MessageServiceServicer):
    """Translates between the proto and `MessageSender`."""

    def __init__(self, sender: MessageSender, calls: ProcessCalls) -> None:
        self._sender = sender
        self._calls = calls

    async def Send(self, request: pb.SendRequest, context: Context) -> pb.Message:
        typing = request.typing_for.ToTimedelta().total_seconds()
        return await self._send(request, context, sending.new_message, _SEND_TIMEOUT_S + typing)

    async def Edit(self, request: pb.EditRequest, context: Context) -> pb.Message:
        return await self._send(request, context, sending.new_edit)

    async def Revoke(self, request: pb.RevokeRequest, context: Context) -> pb.Message:
        return await self._send(request, context, sending.new_revoke)

    async def PinInChat(self, request: pb.PinInChatRequest, context: Context) -> pb.Message:
        return await self._send(request, context, sending.new_pin)

    async def Get(self, request: pb.GetRequest, context: Context) -> pb.Message:
        return outbound_message(await self._sender.get(caller_of(context), request.session_id, request.request_id))

    async def List(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:
        page = message_page(request)
        caller, session_id = caller_of(context), request.session_id
        found = await self._sender.list(caller, session_id, page.chosen, page.after, page.size + 1)
        shown, token = found[: page.size], ""
        if len(found) > page.size:
            last = MessagePosition(shown[-1].create_time, shown[-1].request_id)
            token = message_page_token(session_id, page.chosen, last)
        return pb.ListMessagesResponse(messages=map(outbound_message, shown), next_page_token=token)

    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.Message:
        return outbound_message(await self._sender.cancel(caller_of(context), request.session_id, request.request_id))

    async def MarkRead(self, request: pb.MarkReadRequest, context: Context) -> pb.MarkReadResponse:
        call, timeout = sending.mark_read(request), remaining_time(context, _CALL_TIMEOUT_S)
        await self._calls.call(caller_of(context), request.session_id, call, timeout)
        return pb.MarkReadResponse()

    async def _send(
        self,
        request: _RequestT,
        context: Context,
        parse: Callable[[_RequestT, Mapping[str, OutboundMessage]], NewMessage],
        longest: float = _SEND_TIMEOUT_S,
    ) -> pb.Message:
        caller, session_id, timeout = caller_of(context), request.session_id, remaining_time(context, longest)
        sent = {
            request_id: sending.check_was_sent(await self._sender.get(caller, session_id, request_id))
            for request_id in sending.referenced_ids(request)
        }
        return outbound_message(await self._sender.send(caller, session_id, parse(request, sent), timeout))
