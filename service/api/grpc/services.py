"""Lists the services that work on sessions. Callers reach them on every node, and nodes on the session's owner."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc

from service.api.grpc import messages, sessions
from service.api.grpc.qr_rendering import QrRenderer
from service.domain.caller import Caller
from service.messaging.sender import MessageSender
from service.ports.eventlog import Watch
from service.sessions.process_calls import ProcessCalls
from service.sessions.service import SessionService
from zap.v1 import message_pb2_grpc, session_pb2_grpc


@dataclass(frozen=True)
class Core:
    """The core objects that the servicers call."""

    sessions: Callable[[Caller], SessionService]
    """Returns the sessions, for a caller."""
    sending: MessageSender
    watch: Watch
    calls: ProcessCalls


def add_session_services(core: Core, pictures: QrRenderer, server: grpc.aio.Server) -> tuple[str, ...]:
    """Add the services to a server; return their names."""
    session_pb2_grpc.add_SessionServiceServicer_to_server(sessions.SessionServicer(core.sessions, pictures), server)
    message_pb2_grpc.add_MessageServiceServicer_to_server(messages.MessageServicer(core.sending, core.calls), server)
    return (sessions.NAME, messages.NAME)
