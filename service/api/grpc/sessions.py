"""Serves zap.v1.SessionService: parses requests, calls the core, converts results."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from google.protobuf.empty_pb2 import Empty

from service.api.grpc.context import Context, caller_of
from service.api.grpc.deadlines import remaining_time
from service.api.grpc.qr_rendering import QrRenderer
from service.domain.caller import Caller
from service.domain.pairing import PairingDelayed, PairingEnded, PairingStep
from service.domain.proxies import has_hidden_password, hide_password
from service.ports.sessions import Changes
from service.protocol import parsing
from service.protocol.sessions import outcome_number, reason_message, session_message
from service.protocol.timestamps import timestamp
from service.sessions.service import SessionService
from zap.v1 import session_pb2 as pb
from zap.v1.session_pb2_grpc import SessionServiceServicer

NAME = pb.DESCRIPTOR.services_by_name["SessionService"].full_name
_TIMEOUT_S = 30.0
"""Seconds in which WhatsApp must answer a logout or a request for a pairing code."""


class SessionServicer(SessionServiceServicer):
    """Translates between the proto and `SessionService`."""

    def __init__(self, sessions: Callable[[Caller], SessionService], pictures: QrRenderer) -> None:
        self._sessions_of = sessions
        self._pictures = pictures

    async def Create(self, request: pb.CreateRequest, context: Context) -> pb.Session:
        return session_message(await self._sessions(context).create(parsing.new_session(request)))

    async def Activate(self, request: pb.ActivateRequest, context: Context) -> pb.Session:
        return session_message(await self._sessions(context).activate(request.session_id))

    async def StreamQR(
        self, request: pb.StreamQRRequest, context: Context
    ) -> AsyncGenerator[pb.StreamQRResponse, None]:
        async with aclosing(self._sessions(context).pairing_steps(request.session_id)) as steps:
            async for step in steps:
                yield await self._pairing_update(step)

    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.Session:
        return session_message(await self._sessions(context).status(request.session_id))

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        page = parsing.page(request)
        # Query one more than requested: if it exists, there is another page.
        found = await self._sessions(context).list(page.chosen, page.after, page.size + 1)
        shown = found[: page.size]
        token = parsing.page_token(page.chosen, shown[-1].session_id) if len(found) > page.size else ""
        return pb.ListResponse(sessions=[session_message(session) for session in shown], next_page_token=token)

    async def Update(self, request: pb.UpdateRequest, context: Context) -> pb.Session:
        session_id = request.session.session_id
        sessions = self._sessions(context)
        changes = await _with_stored_password(sessions, session_id, parsing.changes(request))
        return session_message(await sessions.update(session_id, changes, request.session.etag))

    async def Deactivate(self, request: pb.DeactivateRequest, context: Context) -> pb.Session:
        return session_message(await self._sessions(context).deactivate(request.session_id))

    async def Restart(self, request: pb.RestartRequest, context: Context) -> pb.Session:
        return session_message(await self._sessions(context).restart(request.session_id))

    async def RequestPairingCode(
        self, request: pb.RequestPairingCodeRequest, context: Context
    ) -> pb.RequestPairingCodeResponse:
        code, expiry = await self._sessions(context).request_pairing_code(
            request.session_id, parsing.phone_digits(request.phone), remaining_time(context, _TIMEOUT_S)
        )
        return pb.RequestPairingCodeResponse(code=code, expire_time=timestamp(expiry))

    async def Logout(self, request: pb.LogoutRequest, context: Context) -> pb.Session:
        return session_message(
            await self._sessions(context).log_out(request.session_id, remaining_time(context, _TIMEOUT_S))
        )

    async def Delete(self, request: pb.DeleteRequest, context: Context) -> Empty:
        await self._sessions(context).delete(request.session_id, force=request.force)
        return Empty()

    def _sessions(self, context: Context) -> SessionService:
        return self._sessions_of(caller_of(context))

    async def _pairing_update(self, step: PairingStep) -> pb.StreamQRResponse:
        if isinstance(step, PairingEnded):
            return pb.StreamQRResponse(outcome=outcome_number(step.outcome), reason=reason_message(step.reason))
        if isinstance(step, PairingDelayed):
            delay = pb.PairingDelay(next_attempt_time=timestamp(step.next_attempt))
            return pb.StreamQRResponse(delay=delay, reason=reason_message(step.reason))
        picture = await self._pictures.of(step.code.text)
        code = pb.QrCode(
            text=step.code.text,
            png=picture.png,
            terminal_text=picture.terminal_text,
            position=step.code.position,
            expire_time=timestamp(step.code.expire_time),
        )
        return pb.StreamQRResponse(code=code)


async def _with_stored_password(sessions: SessionService, session_id: str, changes: Changes) -> Changes:
    """Keep the stored proxy if the request has it as Status shows it, with the password masked."""
    if not changes.proxy_url or not has_hidden_password(changes.proxy_url):
        return changes
    stored = await sessions.status(session_id)
    if hide_password(stored.proxy_url) != changes.proxy_url:
        raise parsing.refuse(
            "session.proxy_url", "its password is ***, but the rest differs from the stored one; give the password"
        )
    return Changes(name=changes.name, user_id=changes.user_id, labels=changes.labels)
