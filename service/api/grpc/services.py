"""Lists the services that work on sessions. Callers reach them on every node, and nodes on the session's owner."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc

from service.api.grpc import contacts, groups, media, messages, presences, profiles, sessions
from service.api.grpc.qr_rendering import QrRenderer
from service.domain.caller import Caller
from service.media.downloads import Downloads
from service.media.uploads import Uploads
from service.messaging.sender import MessageSender
from service.ports.contacts import ContactStore
from service.ports.eventlog import Watch
from service.sessions.number_checks import NumberChecker
from service.sessions.process_calls import ProcessCalls
from service.sessions.service import SessionService
from zap.v1 import (
    call_service_pb2_grpc,
    contact_pb2_grpc,
    group_service_pb2_grpc,
    media_pb2_grpc,
    message_pb2_grpc,
    presence_service_pb2_grpc,
    profile_pb2_grpc,
    session_pb2_grpc,
)


@dataclass(frozen=True)
class Core:
    """The core objects that the servicers call."""

    sessions: Callable[[Caller], SessionService]
    """Returns the sessions, for a caller."""
    sending: MessageSender
    watch: Watch
    calls: ProcessCalls
    contacts: Callable[[Caller], ContactStore]
    """Returns the people that sessions know, for a caller."""
    number_checker: NumberChecker
    uploads: Uploads
    downloads: Downloads


def add_session_services(core: Core, pictures: QrRenderer, server: grpc.aio.Server) -> tuple[str, ...]:
    """Add the services to a server; return their names."""
    session_pb2_grpc.add_SessionServiceServicer_to_server(sessions.SessionServicer(core.sessions, pictures), server)
    message_pb2_grpc.add_MessageServiceServicer_to_server(messages.MessageServicer(core.sending, core.calls), server)
    contact_pb2_grpc.add_ContactServiceServicer_to_server(
        contacts.ContactServicer(core.contacts, core.calls, core.number_checker), server
    )
    profile_pb2_grpc.add_ProfileServiceServicer_to_server(profiles.ProfileServicer(core.calls), server)
    presence_service_pb2_grpc.add_PresenceServiceServicer_to_server(presences.PresenceServicer(core.calls), server)
    call_service_pb2_grpc.add_CallServiceServicer_to_server(presences.CallServicer(core.calls), server)
    group_service_pb2_grpc.add_GroupServiceServicer_to_server(groups.GroupServicer(core.calls, core.contacts), server)
    media_pb2_grpc.add_MediaServiceServicer_to_server(media.MediaServicer(core.uploads, core.downloads), server)
    people = (contacts.NAME, profiles.NAME, presences.NAME, presences.CALL_NAME)
    return (sessions.NAME, messages.NAME, media.NAME, *people, groups.NAME)
