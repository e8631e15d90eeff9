"""What every call goes through: authentication, a place, its request, the handler, and `call_scope.py` around them.

For gRPC each method takes a stream of requests. Before the handler of any other method grpc.aio reads the request,
from callers too that are then refused; the handler of a stream reads it by itself, when the call is admitted. On the
wire, and to callers, it is all the same.

One interceptor does it all, because an error of any of the steps has to leave by the same door: gRPC's abort raises,
and a second interceptor around it would take that for an error of its own.
"""

import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.message import DecodeError

from service.api.grpc.call_scope import CallScope
from service.api.grpc.context import Context, Handler
from service.api.grpc.drainable_streams import DrainableStreams
from service.api.grpc.limits import CALLS, HEALTH_CALLS, HEALTH_STREAMS, LONGEST_OPEN_REQUEST, STREAMS, Places
from service.api.grpc.receiving import receive
from service.auth.authentication import Authentication, is_open
from service.domain.errors import FieldViolation, InvalidArgument
from service.protocol.validation import read_request
from service.telemetry.metrics import RpcMetrics

_WATCH = "/zap.v1.EventService/Watch"
_SESSION_ID = re.compile(r"[a-z0-9-]{1,63}")


class RemoteCalls(Protocol):
    """Who else may carry out a call (service.api.grpc.forwarding)."""

    async def answer(self, method: str, request: bytes, session_id: str, context: Context) -> bytes | None:
        """The answer, serialised; None: this node carries it out."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handler of every method, once."""

    def __init__(
        self,
        authentication: Authentication,
        streams: DrainableStreams,
        metrics: RpcMetrics,
        elsewhere: RemoteCalls | None = None,
    ) -> None:
        self._authentication = authentication
        self._streams = streams
        self._metrics = metrics
        self._elsewhere = elsewhere
        self._calls, self._open_calls = Places(CALLS), Places(HEALTH_CALLS)
        self._held, self._open_held = Places(STREAMS), Places(HEALTH_STREAMS)
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
            if handler is None or not _is_written(handler):
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Handler:
        behaviour = _behaviour(handler)
        if inspect.isasyncgenfunction(behaviour):
            serve = self._generator(method, handler, behaviour)
        elif handler.response_streaming:
            serve = self._writer(method, handler, behaviour)
        else:
            serve = self._coroutine(method, handler, behaviour)
        make: Any = grpc.stream_unary_rpc_method_handler
        if handler.response_streaming:
            make = grpc.stream_stream_rpc_method_handler
        serialise = handler.response_serializer
        wrapped: Handler = make(
            serve,
            # Bytes that are no request are answered by us, not by gRPC, which has only INTERNAL for them.
            request_deserializer=handler.request_deserializer if handler.request_streaming else None,
            # What another node answered is serialised already.
            response_serializer=lambda answer: answer if isinstance(answer, bytes) else serialise(answer),
        )
        return wrapped

    def _authenticate(self, method: str, context: Context) -> None:
        if self._authentication.needed(method):
            self._authentication.check(context.invocation_metadata() or ())

    async def _request(self, method: str, parse: Any, call: CallScope, context: Context) -> tuple[bytes, Any]:
        """The request of a call that has a place, as it came and as it is read."""
        raw = await receive(context, method)
        call.has_request = True
        if is_open(method) and len(raw) > LONGEST_OPEN_REQUEST:
            raise InvalidArgument([FieldViolation("service", f"must not exceed {LONGEST_OPEN_REQUEST} bytes")])
        try:
            request = read_request(raw, parse)
        except InvalidArgument:
            call.session_id = _named(raw, parse)
            raise
        call.session_id = _session_id(request)
        if call.session_id:
            structlog.contextvars.bind_contextvars(session_id=call.session_id)
        return raw, request

    def _coroutine(self, method: str, handler: Any, behaviour: Any) -> Any:
        """Around a handler that returns its response."""
        name, parse = method.removeprefix("/"), handler.request_deserializer
        places = self._open_calls if is_open(method) else self._calls

        async def serve(_: Any, context: Context) -> Any:
            async with CallScope(name, context, self._metrics) as call:
                self._authenticate(method, context)
                with places.one():
                    raw, request = await self._request(method, parse, call, context)
                    if self._elsewhere is not None and call.session_id:
                        answer = await self._elsewhere.answer(name, raw, call.session_id, context)
                        if answer is not None:
                            return answer
                    response = await behaviour(request, context)
                    # Create may have chosen it.
                    call.session_id = call.session_id or _session_id(response)
                    return response

        return serve

    def _writer(self, method: str, handler: Any, behaviour: Any) -> Any:
        """Around a handler that (every Watch) writes its responses by itself."""
        name = method.removeprefix("/")

        async def serve(requests: Any, context: Context) -> None:
            async with CallScope(name, context, self._metrics) as call:
                self._authenticate(method, context)
                request = await self._opening(method, handler, requests, call, context)
                with self._place(method), self._metrics.open_stream(name):
                    await self._streams.run_until_drained(lambda: behaviour(request, context))

        return serve

    def _generator(self, method: str, handler: Any, behaviour: Any) -> Any:
        """Around a handler that yields its responses."""
        name = method.removeprefix("/")

        async def serve(requests: Any, context: Context) -> AsyncIterator[Any]:
            async with CallScope(name, context, self._metrics) as call:
                self._authenticate(method, context)
                request = await self._opening(method, handler, requests, call, context)
                with self._place(method), self._metrics.open_stream(name):
                    async with aclosing(behaviour(request, context)) as responses:
                        async for response in self._until_drained(responses):
                            yield response

        return serve

    async def _opening(self, method: str, handler: Any, requests: Any, call: CallScope, context: Context) -> Any:
        """What the handler of a stream is given: its request, or its requests as they come."""
        if handler.request_streaming:
            call.has_request = True
            return requests
        with (self._open_calls if is_open(method) else self._calls).one():
            return (await self._request(method, handler.request_deserializer, call, context))[1]

    def _place(self, method: str) -> AbstractContextManager[None]:
        # Watch has a bound of its own, which is a setting.
        if method == _WATCH:
            return nullcontext()
        return (self._open_held if is_open(method) else self._held).one()

    async def _until_drained(self, responses: AsyncGenerator[Any, None]) -> AsyncIterator[Any]:
        while True:
            try:
                response = await self._streams.next_item(responses)
            except StopAsyncIteration:
                return
            yield response


def _behaviour(handler: Any) -> Any:
    return handler.unary_unary or handler.unary_stream or handler.stream_stream


def _is_written(handler: Any) -> bool:
    """Whether its method is more than what generated code has for one that is not: a plain function that raises."""
    behaviour = _behaviour(handler)
    return inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)


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
