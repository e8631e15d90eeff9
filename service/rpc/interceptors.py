"""What every call goes through: authentication, validation, the handler, and `service.rpc.calls` around them.

One interceptor does it all, because an error of any of the steps has to leave by the same door: gRPC's abort raises,
and a second interceptor around it would take that for an error of its own.
"""

import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.message import DecodeError

from service.domain.errors import InvalidArgument
from service.protocol.validation import read_request
from service.rpc.authentication import Authentication
from service.rpc.calls import Call
from service.rpc.context import Context, Handler
from service.rpc.streams import OpenStreams
from service.telemetry.metrics import RpcMetrics

_OURS = "/zap."
_SESSION_ID = re.compile(r"[a-z0-9-]{1,63}")


class Elsewhere(Protocol):
    """Who else may carry out a call (service.rpc.forwarding)."""

    async def answer(self, method: str, request: bytes, session_id: str, context: Context) -> bytes | None:
        """The answer, serialised; None: this node carries it out."""


Admit = Callable[[Call, Any, Context], Any]
"""From a call and what came with it to the request for its handler."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handler of every method, once."""

    def __init__(
        self,
        authentication: Authentication,
        streams: OpenStreams,
        metrics: RpcMetrics,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._authentication = authentication
        self._streams = streams
        self._metrics = metrics
        self._elsewhere = elsewhere
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The wrapped handler of a method; None, which gRPC answers with UNIMPLEMENTED, if there is none."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Handler:
        behaviour, make = _behaviour(handler)
        parse = handler.request_deserializer
        ours = method.startswith(_OURS)
        admit = self._reader(method, parse) if ours else self._gate(method)
        serve: Any
        if inspect.isasyncgenfunction(behaviour):
            serve = self._generator(method, behaviour, admit)
        else:
            serve = self._coroutine(method, behaviour, admit, streams=handler.response_streaming)
        # Without a deserialiser gRPC hands the bytes over: those that are no request are answered by us, not by gRPC,
        # which has only INTERNAL for them.
        serialise = handler.response_serializer
        wrapped: Handler = make(
            serve,
            request_deserializer=None if ours else parse,
            # What another node answered is serialised already.
            response_serializer=lambda answer: answer if isinstance(answer, bytes) else serialise(answer),
        )
        return wrapped

    def _reader(self, method: str, parse: Any) -> Admit:
        authenticate = self._gate(method)

        def read(call: Call, raw: bytes, context: Context) -> Any:
            authenticate(call, raw, context)
            try:
                request = read_request(raw, parse)
            except InvalidArgument:
                call.session_id = _named(raw, parse)
                raise
            call.session_id = _session_id(request)
            if call.session_id:
                structlog.contextvars.bind_contextvars(session_id=call.session_id)
            return request

        return read

    def _gate(self, method: str) -> Admit:
        needed = self._authentication.needed(method)

        def authenticate(_: Call, request: Any, context: Context) -> Any:
            if needed:
                self._authentication.check(context.invocation_metadata() or ())
            return request

        return authenticate

    def _coroutine(self, method: str, behaviour: Any, admit: Admit, *, streams: bool) -> Any:
        """Around a handler that returns its response, or (every Watch) writes its responses by itself."""
        name = method.removeprefix("/")

        async def serve(raw: Any, context: Context) -> Any:
            async with Call(name, context, self._metrics) as call:
                request = admit(call, raw, context)
                if streams:
                    with self._metrics.open_stream(name):
                        return await self._streams.outlast(lambda: behaviour(request, context))
                if self._elsewhere is not None and call.session_id:
                    answer = await self._elsewhere.answer(name, raw, call.session_id, context)
                    if answer is not None:
                        return answer
                response = await behaviour(request, context)
                # Create may have chosen it.
                call.session_id = call.session_id or _session_id(response)
                return response

        return serve

    def _generator(self, method: str, behaviour: Any, admit: Admit) -> Any:
        """Around a handler that yields its responses."""
        name = method.removeprefix("/")

        async def serve(raw: Any, context: Context) -> AsyncIterator[Any]:
            async with Call(name, context, self._metrics) as call:
                request = admit(call, raw, context)
                with self._metrics.open_stream(name):
                    async with aclosing(behaviour(request, context)) as responses:
                        async for response in self._until_drained(responses):
                            yield response

        return serve

    async def _until_drained(self, responses: AsyncGenerator[Any, None]) -> AsyncIterator[Any]:
        while True:
            try:
                response = await self._streams.next_item(responses)
            except StopAsyncIteration:
                return
            yield response


def _behaviour(handler: Any) -> tuple[Any, Any]:
    """The function of a handler, and gRPC's function that makes a handler of this kind from another one."""
    if handler.unary_unary:
        return handler.unary_unary, grpc.unary_unary_rpc_method_handler
    if handler.unary_stream:
        return handler.unary_stream, grpc.unary_stream_rpc_method_handler
    return handler.stream_stream, grpc.stream_stream_rpc_method_handler


def _named(raw: bytes, parse: Any) -> str:
    """The session that a refused request is about, if it names one by what can be an id."""
    try:
        named = _session_id(parse(raw))
    except DecodeError:
        return ""
    return named if _SESSION_ID.fullmatch(named) else ""


def _session_id(request: Any) -> str:
    if hasattr(request, "session_id"):
        return str(request.session_id)
    return str(request.session.session_id) if hasattr(request, "session") else ""
