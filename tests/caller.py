"""Somebody who calls a node over gRPC, and the steps that many tests take."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from zap.v1 import message_pb2, message_pb2_grpc, session_pb2, session_pb2_grpc

if TYPE_CHECKING:
    from zap.v1.message_pb2_grpc import MessageServiceAsyncStub
    from zap.v1.session_pb2_grpc import SessionServiceAsyncStub

State = session_pb2.Session.State


class Caller:
    """Of one node."""

    def __init__(self, address: str, token: str = "") -> None:
        """`address`: host:port. `token`: sent with every call, if there is one."""
        self.address = address
        self._token = token
        self._channel: grpc.aio.Channel | None = None

    @property
    def sessions(self) -> "SessionServiceAsyncStub":
        """SessionService on this node."""
        return session_pb2_grpc.SessionServiceStub(self.channel)

    @property
    def messages(self) -> "MessageServiceAsyncStub":
        """MessageService on this node."""
        return message_pb2_grpc.MessageServiceStub(self.channel)

    @property
    def channel(self) -> grpc.aio.Channel:
        """A channel to this node; made anew after `hang_up`, since a broken one backs off."""
        if self._channel is None:
            tokens = [_TokenForOne(self._token), _TokenForMany(self._token)] if self._token else []
            self._channel = grpc.aio.insecure_channel(self.address, interceptors=tokens)
        return self._channel

    async def is_serving(self) -> bool:
        """Its health says SERVING."""
        # Its stubs have no attributes.
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.aio.AioRpcError:
            await self.hang_up()
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def hang_up(self) -> None:
        """Close the channel; the next call makes another one."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def create(self, session_id: str, *, activate: bool = True) -> session_pb2.Session:
        """A session, wanted unless said otherwise."""
        session = await self.sessions.Create(session_pb2.CreateRequest(session_id=session_id))
        if activate:
            session = await self.sessions.Activate(session_pb2.ActivateRequest(session_id=session_id))
        return session

    async def status(self, session_id: str) -> session_pb2.Session:
        """The session as it is now."""
        return await self.sessions.Status(session_pb2.StatusRequest(session_id=session_id))

    async def qr_updates(self, session_id: str) -> AsyncGenerator[session_pb2.StreamQRResponse, None]:
        """What StreamQR gives. Closing it hangs up: use contextlib.aclosing where not all is read."""
        call = self.sessions.StreamQR(session_pb2.StreamQRRequest(session_id=session_id))
        try:
            async for update in call:
                yield update
        finally:
            call.cancel()

    async def first_code(self, session_id: str, timeout: float = 15.0) -> str:
        """The text of the code on show."""
        async with asyncio.timeout(timeout), contextlib.aclosing(self.qr_updates(session_id)) as updates:
            async for update in updates:
                if update.HasField("code"):
                    return update.code.text
                if not update.HasField("delay"):
                    raise AssertionError(f"no code but {update}")
        raise AssertionError("the stream ended without a code")

    async def outcome(self, session_id: str, timeout: float = 30.0) -> session_pb2.StreamQRResponse:
        """The last message of StreamQR."""
        last = None
        async with asyncio.timeout(timeout), contextlib.aclosing(self.qr_updates(session_id)) as updates:
            async for update in updates:
                last = update
        if last is None or not last.outcome:
            raise AssertionError(f"the stream ended without an outcome, after {last}")
        return last

    async def wait_state(
        self,
        session_id: str,
        *states: "session_pb2.Session.State.ValueType",
        timeout: float = 15.0,
        after_epoch: int = 0,
    ) -> session_pb2.Session:
        """Until the session is in one of these states; TimeoutError tells where it was instead.

        `after_epoch`: and owned under a later one. Until a killed node's lease ends, its word is still believed.
        """
        deadline = time.monotonic() + timeout
        while True:
            session = await self.status(session_id)
            if session.state in states and (not after_epoch or session.owner.epoch > after_epoch):
                return session
            if time.monotonic() > deadline:
                wanted = ", ".join(State.Name(state) for state in states)
                raise TimeoutError(f"{session_id} was not {wanted} after {timeout} s but\n{session}")
            await asyncio.sleep(0.02)

    async def send(self, session_id: str, to: str, body: str, request_id: str) -> message_pb2.Message:
        """Send a text."""
        request = message_pb2.SendRequest(
            session_id=session_id, to=to, request_id=request_id, text=message_pb2.Text(body=body)
        )
        return await self.messages.Send(request, timeout=20)


class _TokenForOne(grpc.aio.UnaryUnaryClientInterceptor):
    """Sends the token with calls that have one answer. One class for both kinds would be taken for one of them."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_token(client_call_details, self._token), request)


class _TokenForMany(grpc.aio.UnaryStreamClientInterceptor):
    """Sends the token with calls that have many answers."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_token(client_call_details, self._token), request)


def _with_token(details: Any, token: str) -> Any:
    return details._replace(metadata=[*(details.metadata or ()), ("authorization", f"Bearer {token}")])
