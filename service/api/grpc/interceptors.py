"""Takes every call through authentication, the call limit, reading its request and the handler, inside a `CallScope`.

Every method is registered with gRPC as one that takes a stream of requests. For other methods grpc.aio reads the
request before the handler runs, even from callers that are then refused. The handler of a request stream reads it
itself, once the call is admitted. On the wire, and for callers, there is no difference.

One interceptor does all steps. gRPC's abort raises an exception, and a second interceptor around it would report that
exception as another error.
"""

import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.message import DecodeError

from service.api.grpc.call_scope import CallScope
from service.api.grpc.context import AdmittedContext, Context, Handler
from service.api.grpc.drainable_streams import DrainableStreams
from service.api.grpc.errors import RemoteError, status_of
from service.api.grpc.limits import (
    HEALTH_CALLS,
    HEALTH_STREAMS,
    MAX_CALLS,
    MAX_OPEN_REQUEST_BYTES,
    MAX_STREAMS,
    CallLimiter,
)
from service.api.grpc.receiving import ConvertedStream, RequestStream, discard_rest, receive
from service.auth.authentication import is_open
from service.domain.caller import Caller
from service.domain.errors import FieldViolation, InvalidArgument, ZapError
from service.protocol.validation import read_request
from service.telemetry.metrics import RpcMetrics

_WATCH = "/zap.v1.EventService/Watch"
_SESSION_ID = re.compile(r"[a-z0-9-]{1,63}")


class Authenticator(Protocol):
    """Says who calls (service.auth.authentication; NodeAuthentication for calls of other nodes)."""

    def check(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Return the caller. Raise Unauthenticated."""


class RemoteCalls(Protocol):
    """Answers calls that another node must carry out (service.api.grpc.forwarding)."""

    async def answer(self, method: str, request: bytes, session_id: str, context: AdmittedContext) -> bytes | None:
        """Return the serialised answer, or None if this node must carry the call out."""

    async def answer_stream(
        self, method: str, requests: AsyncIterator[bytes], session_id: str, context: AdmittedContext
    ) -> bytes | None:
        """Return the serialised answer to a stream of requests, or None, and no request taken, as `answer` does."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handler of each method once."""

    def __init__(
        self,
        authentication: Authenticator,
        streams: DrainableStreams,
        metrics: RpcMetrics,
        remote_calls: RemoteCalls | None = None,
    ) -> None:
        self._authentication = authentication
        self._streams = streams
        self._metrics = metrics
        self._remote_calls = remote_calls
        self._calls, self._health_calls = CallLimiter(MAX_CALLS), CallLimiter(HEALTH_CALLS)
        self._active_streams, self._health_streams = CallLimiter(MAX_STREAMS), CallLimiter(HEALTH_STREAMS)
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the wrapped handler of a method, or None for an unknown one, which gRPC answers with UNIMPLEMENTED."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None or not _is_implemented(handler):
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Handler:
        behaviour = _behaviour(handler)
        if inspect.isasyncgenfunction(behaviour):
            serve = self._generator(method, handler, behaviour)
        elif handler.response_streaming:
            serve = self._writer(method, handler, behaviour)
        elif handler.request_streaming:
            serve = self._collector(method, handler, behaviour)
        else:
            serve = self._coroutine(method, handler, behaviour)
        make: Any = grpc.stream_unary_rpc_method_handler
        if handler.response_streaming:
            make = grpc.stream_stream_rpc_method_handler
        serialise = handler.response_serializer
        wrapped: Handler = make(
            serve,
            # Requests are parsed in `_request`: for malformed bytes gRPC itself would answer INTERNAL. Streams in both
            # directions are gRPC's own (reflection).
            request_deserializer=handler.request_deserializer if handler.stream_stream else None,
            # A forwarded answer is serialised already.
            response_serializer=lambda answer: answer if isinstance(answer, bytes) else serialise(answer),
        )
        return wrapped

    def _admit(self, method: str, call: CallScope, context: Context) -> AdmittedContext:
        """Return the context with the caller. Raise Unauthenticated."""
        call.caller = self._authentication.check(method, context.invocation_metadata() or ())
        return AdmittedContext(context, call.caller)

    async def _request(self, method: str, parse: Any, call: CallScope, context: Context) -> tuple[bytes, Any]:
        """Return the request of an admitted call, as bytes and parsed."""
        raw = await receive(context, method)
        call.has_request = True
        if is_open(method) and len(raw) > MAX_OPEN_REQUEST_BYTES:
            raise InvalidArgument([FieldViolation("service", f"must not exceed {MAX_OPEN_REQUEST_BYTES} bytes")])
        try:
            request = read_request(raw, parse)
        except InvalidArgument:
            call.session_id = _session_id_of_invalid(raw, parse)
            raise
        call.session_id = _session_id(request)
        if call.session_id:
            structlog.contextvars.bind_contextvars(session_id=call.session_id)
        return raw, request

    def _coroutine(self, method: str, handler: Any, behaviour: Any) -> Any:
        """Wrap a handler that returns its response."""
        name, parse = method.removeprefix("/"), handler.request_deserializer
        limiter = self._call_limiter(method)

        async def serve(_: Any, context: Context) -> Any:
            async with CallScope(name, context, self._metrics) as call:
                admitted = self._admit(method, call, context)
                with limiter.slot():
                    raw, request = await self._request(method, parse, call, context)
                    if self._remote_calls is not None and call.session_id:
                        answer = await self._remote_calls.answer(name, raw, call.session_id, admitted)
                        if answer is not None:
                            return answer
                    response = await behaviour(request, admitted)
                    # Create may have chosen the id.
                    call.session_id = call.session_id or _session_id(response)
                    return response

        return serve

    def _collector(self, method: str, handler: Any, behaviour: Any) -> Any:
        """Wrap a handler that takes a stream of requests and returns its response (Upload)."""
        name, parse = method.removeprefix("/"), handler.request_deserializer
        limiter = self._call_limiter(method)

        async def serve(_: Any, context: Context) -> Any:
            async with CallScope(name, context, self._metrics) as call:
                admitted = self._admit(method, call, context)
                with limiter.slot():
                    try:
                        raw, _ = await self._request(method, parse, call, context)
                        requests = RequestStream(raw, context, method)
                        if self._remote_calls is not None and call.session_id:
                            answer = await self._remote_calls.answer_stream(name, requests, call.session_id, admitted)
                            if answer is not None:
                                return answer
                        parsed = ConvertedStream(lambda item: read_request(item, parse), requests)
                        return await behaviour(parsed, admitted)
                    except (ZapError, RemoteError) as error:
                        await discard_rest(context, status_of(error, name))
                        raise

        return serve

    def _writer(self, method: str, handler: Any, behaviour: Any) -> Any:
        """Wrap a handler that writes its responses itself (Watch, Download)."""
        name = method.removeprefix("/")

        async def serve(requests: Any, context: Context) -> None:
            async with CallScope(name, context, self._metrics) as call:
                admitted = self._admit(method, call, context)
                request = await self._stream_request(method, handler, requests, call, context)
                with self._stream_slot(method), self._metrics.open_stream(name):
                    await self._streams.run_until_drained(lambda: behaviour(request, admitted))

        return serve

    def _generator(self, method: str, handler: Any, behaviour: Any) -> Any:
        """Wrap a handler that yields its responses."""
        name = method.removeprefix("/")

        async def serve(requests: Any, context: Context) -> AsyncIterator[Any]:
            async with CallScope(name, context, self._metrics) as call:
                admitted = self._admit(method, call, context)
                request = await self._stream_request(method, handler, requests, call, context)
                with self._stream_slot(method), self._metrics.open_stream(name):
                    async with aclosing(behaviour(request, admitted)) as responses:
                        async for response in self._until_drained(responses):
                            yield response

        return serve

    async def _stream_request(self, method: str, handler: Any, requests: Any, call: CallScope, context: Context) -> Any:
        """Return the argument for a stream's handler: its one request, or the iterator of its requests."""
        if handler.request_streaming:
            call.has_request = True
            return requests
        with self._call_limiter(method).slot():
            return (await self._request(method, handler.request_deserializer, call, context))[1]

    def _call_limiter(self, method: str) -> CallLimiter:
        return self._health_calls if is_open(method) else self._calls

    def _stream_slot(self, method: str) -> AbstractContextManager[None]:
        # The setting ZAP_WATCH_STREAMS limits Watch.
        if method == _WATCH:
            return nullcontext()
        return (self._health_streams if is_open(method) else self._active_streams).slot()

    async def _until_drained(self, responses: AsyncGenerator[Any, None]) -> AsyncIterator[Any]:
        while True:
            try:
                response = await self._streams.next_item(responses)
            except StopAsyncIteration:
                return
            yield response


def _behaviour(handler: Any) -> Any:
    return handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream


def _is_implemented(handler: Any) -> bool:
    """Return whether the method is implemented: generated code has a plain function that raises for the others."""
    behaviour = _behaviour(handler)
    return inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)


def _session_id_of_invalid(raw: bytes, parse: Any) -> str:
    """Return the session id of an invalid request for the log, or an empty text if it has no well-formed one."""
    try:
        session_id = _session_id(parse(raw))
    except DecodeError:
        return ""
    return session_id if _SESSION_ID.fullmatch(session_id) else ""


def _session_id(request: Any) -> str:
    if hasattr(request, "session_id"):
        return str(request.session_id)
    part = next((getattr(request, name) for name in ("session", "header") if hasattr(request, name)), None)
    return str(part.session_id) if part is not None else ""
