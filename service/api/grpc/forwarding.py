"""Forwards calls that need a session's owner from any node to the owner, byte for byte.

    caller ──▶ this node ──(not owned here: look up the owner)──▶ the owner's node listener ──▶ its answer or error

The call goes on behalf of the same caller: the owner trusts the node, which has authenticated it.

A stream of requests (Upload) goes on one request after another, only as fast as the owner takes them.

If a call of one request fails because the owner has changed, it is sent once to the new owner, unless it could then be
carried out twice. A node never forwards a forwarded call: it owns the session, or answers NOT_OWNER.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol
from uuid import UUID

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from service.api.grpc.context import AdmittedContext
from service.api.grpc.errors import DOMAIN, RemoteError
from service.domain.caller import NODE, TOKEN_HOLDER, Caller
from service.domain.errors import Unauthenticated, Unavailable
from service.domain.lease import LeaseOwner
from service.ownership.router import Router
from service.protocol.methods import OWNER_METHODS, REPEATABLE_METHODS
from service.telemetry.metrics import RpcMetrics
from zap.node.v1.node_pb2 import Caller as CallerMessage

log = structlog.get_logger(__name__)

NOT_OWNER = "NOT_OWNER"
_DEFAULT_TIMEOUT_S = 65.0
"""Seconds for a call without a deadline: longer than the owner needs for any call."""
_DEFAULT_STREAM_TIMEOUT_S = 3_700.0
"""Seconds for a stream of requests without a deadline: longer than the largest ZAP_MEDIA_TIMEOUT."""
_FORWARDED_METADATA = frozenset({"traceparent", "tracestate", "baggage", "x-request-id"})
"""Metadata keys that are forwarded. The token is not: the owner gets the caller whom it admitted."""
_CALLER = "zap-caller-bin"
"""Metadata key for the caller (zap.node.v1.Caller). Only the node listener reads it."""
_TARGET_INCARNATION = "zap-incarnation"
"""Metadata key for the incarnation of the target node. Its address may now belong to a different node, even one of
another database with the same secret and session id."""
_RETRY_AFTER_S = 1.0


class Channels(Protocol):
    """Connections to other nodes."""

    def to(self, address: str) -> AbstractContextManager[grpc.aio.Channel]:
        """Return a channel to this address that is usable while the context lasts."""


class Forwarder:
    """Forwards calls of callers to the session's owner."""

    def __init__(self, router: Router, channels: Channels, metrics: RpcMetrics) -> None:
        self._router = router
        self._channels = channels
        self._metrics = metrics

    async def answer(self, method: str, request: bytes, session_id: str, context: AdmittedContext) -> bytes | None:
        """Return the owner's answer, or None if this node must carry the call out. Raise RemoteError or Unavailable."""
        if method not in OWNER_METHODS or (owner := await self._router.remote_owner(session_id)) is None:
            return None
        deadline = time.monotonic() + _timeout_of(context, _DEFAULT_TIMEOUT_S)
        metadata = _metadata_of(context)
        may_retry = True
        for tries_left in (1, 0):
            try:
                return await self._call(owner, method, request, deadline, metadata)
            except _NotAnswered as failure:
                log.info(
                    "A call could not be forwarded to the owner.",
                    method=method,
                    node=owner.node.name,
                    caller=context.caller.id,
                    cause=str(failure),
                )
                may_retry = failure.was_refused or method in REPEATABLE_METHODS
            now = await self._router.remote_owner(session_id) if tries_left and may_retry else None
            if now is None or now.node.incarnation == owner.node.incarnation:
                break
            owner = now
        if may_retry and self._router.is_here(session_id):
            return None
        raise _unreachable(owner)

    async def answer_stream(
        self, method: str, requests: AsyncIterator[bytes], session_id: str, context: AdmittedContext
    ) -> bytes | None:
        """Pass a stream of requests on, each once the owner has taken the one before. As `answer`, without a retry.

        The requests are not kept, so they can be sent once only.
        """
        if method not in OWNER_METHODS or (owner := await self._router.remote_owner(session_id)) is None:
            return None
        channel: Any
        metadata = (*_metadata_of(context), (_TARGET_INCARNATION, str(owner.node.incarnation)))
        timeout = _timeout_of(context, _DEFAULT_STREAM_TIMEOUT_S)
        try:
            with self._channels.to(owner.node.address) as channel:
                answer = await _pass_on(
                    channel.stream_unary(f"/{method}")(timeout=timeout, metadata=metadata), requests
                )
        except grpc.aio.AioRpcError as error:
            self._metrics.forwarded(method, error.code().name)
            status = remote_error(error)
            if status is None or reason_of(status) == NOT_OWNER:
                raise _stream_not_taken(owner) from error
            raise RemoteError(status) from error
        self._metrics.forwarded(method, "OK")
        return answer

    async def _call(
        self, owner: LeaseOwner, method: str, request: bytes, deadline: float, metadata: tuple[tuple[str, Any], ...]
    ) -> bytes:
        # The bytes are not parsed, so that fields of newer callers and owners pass through an older node.
        channel: Any
        left = max(0.0, deadline - time.monotonic())
        metadata = (*metadata, (_TARGET_INCARNATION, str(owner.node.incarnation)))
        try:
            with self._channels.to(owner.node.address) as channel:
                answer: bytes = await channel.unary_unary(f"/{method}")(request, timeout=left, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            status = remote_error(error)
            self._metrics.forwarded(method, error.code().name)
            if status is None or reason_of(status) == NOT_OWNER:
                raise _NotAnswered(error.details() or error.code().name, was_refused=status is not None) from error
            raise RemoteError(status) from error
        self._metrics.forwarded(method, "OK")
        return answer


async def _pass_on(call: Any, requests: AsyncIterator[bytes]) -> bytes:
    """Write the requests to a call, and return its answer. Raise AioRpcError."""
    try:
        # An owner that refuses ends the call before the last request; its status says why.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            async for request in requests:
                await call.write(request)
                # Not until the next one has arrived.
                del request
            await call.done_writing()
        answer: bytes = await call
        return answer
    finally:
        # Has no effect on a call that is done.
        call.cancel()


class NodeAuthentication:
    """Says on whose behalf another node calls. TLS has authenticated the node."""

    def check(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Return the caller of a forwarded call, or the node. Raise Unauthenticated if the caller cannot be read."""
        if method.removeprefix("/") not in OWNER_METHODS:
            return NODE
        value = dict(metadata).get(_CALLER)
        if value is None:
            # Nodes of older releases do not send the caller.
            return TOKEN_HOLDER
        with suppress(DecodeError):
            if isinstance(value, bytes) and (name := CallerMessage.FromString(value).id):
                return Caller(name)
        raise Unauthenticated(f"the metadata {_CALLER} names no caller")


class OwnershipGuard:
    """Admits forwarded calls for sessions that this node owns."""

    def __init__(self, router: Router, incarnation: UUID) -> None:
        self._router = router
        self._incarnation = str(incarnation)

    async def answer(self, method: str, request: bytes, session_id: str, context: AdmittedContext) -> bytes | None:
        """Return None if this node must carry the call out. Raise Unavailable (NOT_OWNER) otherwise."""
        if method not in OWNER_METHODS:
            return None
        # Nodes of older releases do not send the incarnation.
        incarnation = dict(context.invocation_metadata() or ()).get(_TARGET_INCARNATION, self._incarnation)
        if incarnation == self._incarnation and self._router.is_here(session_id):
            return None
        raise Unavailable(
            f"session {session_id!r} is not run by this node", reason=NOT_OWNER, metadata={"session_id": session_id}
        )

    async def answer_stream(
        self, method: str, requests: AsyncIterator[bytes], session_id: str, context: AdmittedContext
    ) -> bytes | None:
        """Return None if this node must carry the call out. Raise Unavailable (NOT_OWNER) otherwise."""
        return await self.answer(method, b"", session_id, context)


class _NotAnswered(Exception):
    """The called node could not be reached, or is not the owner."""

    def __init__(self, message: str, *, was_refused: bool) -> None:
        """Take `was_refused`: the node answered that it is not the owner, so it certainly did nothing."""
        super().__init__(message)
        self.was_refused = was_refused


def _timeout_of(context: AdmittedContext, default: float) -> float:
    left: float | None = context.time_remaining()
    return default if left is None else left


def _metadata_of(context: AdmittedContext) -> tuple[tuple[str, Any], ...]:
    """Return the metadata to pass on, with the caller."""
    caller = CallerMessage(id=context.caller.id).SerializeToString()
    return (*(item for item in context.invocation_metadata() or () if _is_forwarded(*item)), (_CALLER, caller))


def _is_forwarded(key: str, value: str | bytes) -> bool:
    # Some clients send values that gRPC refuses to send again. Such a value must not fail the call.
    return key in _FORWARDED_METADATA and isinstance(value, str) and value.isascii() and value.isprintable()


def remote_error(error: grpc.aio.AioRpcError) -> Status | None:
    """Return the status of the other node's service, or None if the error comes from gRPC itself."""
    try:
        status: Status | None = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:
        return None
    return status if status is not None and reason_of(status) else None


def reason_of(status: Status) -> str:
    """Return the reason in the status's ErrorInfo, or an empty text if it has none of our domain."""
    for detail in status.details:
        info = details.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return str(info.reason)
    return ""


def _unreachable(owner: LeaseOwner) -> Unavailable:
    return Unavailable(
        f"the session's owner, node {owner.node.name!r}, did not confirm the call; it may have been carried out: check"
        " the session, or call again with the same request_id",
        reason="OWNER_UNREACHABLE",
        metadata={"node": owner.node.name, "epoch": str(owner.epoch)},
        retry_after=_RETRY_AFTER_S,
    )


def _stream_not_taken(owner: LeaseOwner) -> Unavailable:
    return Unavailable(
        f"the session's owner, node {owner.node.name!r}, did not take the whole stream; call again",
        reason="OWNER_UNREACHABLE",
        metadata={"node": owner.node.name, "epoch": str(owner.epoch)},
        retry_after=_RETRY_AFTER_S,
    )
