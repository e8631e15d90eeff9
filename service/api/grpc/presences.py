"""Serves zap.v1.PresenceService and zap.v1.CallService: both only send something to WhatsApp, which does not answer."""

from google.protobuf.empty_pb2 import Empty

from service.api.grpc.context import Context
from service.api.grpc.process_requests import ask
from service.protocol.sending import recipient
from service.sessions.process_calls import ProcessCalls
from zap.v1 import call_service_pb2
from zap.v1 import presence_service_pb2 as pb
from zap.v1.call_service_pb2_grpc import CallServiceServicer
from zap.v1.presence_service_pb2_grpc import PresenceServiceServicer
from zap.worker.v1 import contacts_pb2

NAME = pb.DESCRIPTOR.services_by_name["PresenceService"].full_name
CALL_NAME = call_service_pb2.DESCRIPTOR.services_by_name["CallService"].full_name


class PresenceServicer(PresenceServiceServicer):
    """Translates between the proto and the requests of the session's process."""

    def __init__(self, calls: ProcessCalls) -> None:
        self._calls = calls

    async def SetPresence(self, request: pb.SetPresenceRequest, context: Context) -> pb.SetPresenceResponse:
        asked = contacts_pb2.SetPresence(is_online=request.is_online)
        await ask(self._calls, context, request.session_id, asked, Empty)
        return pb.SetPresenceResponse()

    async def SetChatPresence(self, request: pb.SetChatPresenceRequest, context: Context) -> pb.SetChatPresenceResponse:
        asked = contacts_pb2.SetChatPresence(jid=recipient(request.chat), activity=request.activity)
        await ask(self._calls, context, request.session_id, asked, Empty)
        return pb.SetChatPresenceResponse()

    async def Subscribe(self, request: pb.SubscribeRequest, context: Context) -> pb.SubscribeResponse:
        asked = contacts_pb2.SubscribePresence(jid=recipient(request.person))
        await ask(self._calls, context, request.session_id, asked, Empty)
        return pb.SubscribeResponse()


class CallServicer(CallServiceServicer):
    """Translates between the proto and the request of the session's process."""

    def __init__(self, calls: ProcessCalls) -> None:
        self._calls = calls

    async def Reject(
        self, request: call_service_pb2.RejectRequest, context: Context
    ) -> call_service_pb2.RejectResponse:
        asked = contacts_pb2.RejectCall(jid=request.caller, call_id=request.call_id)
        await ask(self._calls, context, request.session_id, asked, Empty)
        return call_service_pb2.RejectResponse()
