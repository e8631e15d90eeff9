"""Calls that need a session's owner, made on a node that is not: passed on to it as they are, byte for byte.

    caller ──▶ this node ──(not here: who owns it?)──▶ the owner's own listener ──▶ its answer, or its error, as it is

Another owner is asked if it has changed meanwhile and nothing can be done twice; then the caller is told. A node that
is asked by another one never passes on: it owns the session, or says NOT_OWNER.
"""

import time
from contextlib import AbstractContextManager
from typing import Any, Protocol
from uuid import UUID

import grpc
import structlog
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from service.api.grpc.context import Context
from service.api.grpc.errors import DOMAIN, RemoteError
from service.domain.errors import Unavailable
from service.domain.lease import LeaseOwner
from service.ownership.router import Router
from service.telemetry.metrics import RpcMetrics

log = structlog.get_logger(__name__)

OWNER_METHODS = frozenset(
    {
        "zap.v1.MessageService/Send",
        "zap.v1.SessionService/Logout",
        "zap.v1.SessionService/RequestPairingCode",
        "zap.v1.SessionService/Restart",
    }
)
"""Methods that are carried out by the session's process."""
_ONCE = frozenset({"zap.v1.MessageService/Send"})
"""Those that are carried out once, however often they are asked for: under their request_id."""

NOT_OWNER = "NOT_OWNER"
LONGEST = 40.0
"""Seconds for a call without a deadline: more than the owner takes for any."""
_CARRIED = frozenset({"traceparent", "tracestate", "baggage", "x-request-id"})
"""What goes along of a call's metadata. Never its token: the owner trusts the node, which has looked at it."""
_MEANT = "zap-incarnation"
"""The node that is asked. Another one may have come to its address, even one of another database that shares the secret
and has a session of the same id."""
_RETRY_AFTER = 1.0


class Channels(Protocol):
    """Connections to other nodes."""

    def to(self, address: str) -> AbstractContextManager[grpc.aio.Channel]:
        """One to this address, to call on while the context lasts."""


class Forwarder:
    """For calls that come from callers."""

    def __init__(self, router: Router, channels: Channels, metrics: RpcMetrics) -> None:
        self._router = router
        self._channels = channels
        self._metrics = metrics

    async def answer(self, method: str, request: bytes, session_id: str, context: Context) -> bytes | None:
        """The owner's answer; None: this node carries it out. Raises RemoteError, Unavailable."""
        if method not in OWNER_METHODS or (holder := await self._router.elsewhere(session_id)) is None:
            return None
        left: float | None = context.time_remaining()
        deadline = time.monotonic() + (LONGEST if left is None else left)
        carried = tuple(item for item in context.invocation_metadata() or () if _goes_along(*item))
        is_harmless = True
        for tries_left in (1, 0):
            try:
                return await self._ask(holder, method, request, deadline, carried)
            except _NotAnswered as failure:
                node = holder.node.name
                log.info("A call could not be passed on.", method=method, node=node, cause=str(failure))
                is_harmless = failure.was_refused or method in _ONCE
            now = await self._router.elsewhere(session_id) if tries_left and is_harmless else None
            if now is None or now.node.incarnation == holder.node.incarnation:
                break
            holder = now
        if is_harmless and self._router.is_here(session_id):
            return None
        raise _unreachable(holder)

    async def _ask(
        self, holder: LeaseOwner, method: str, request: bytes, deadline: float, metadata: tuple[tuple[str, Any], ...]
    ) -> bytes:
        # Bytes in, bytes out: what a newer caller and a newer owner say to each other passes through an older node.
        channel: Any
        left = max(0.0, deadline - time.monotonic())
        metadata = (*metadata, (_MEANT, str(holder.node.incarnation)))
        try:
            with self._channels.to(holder.node.address) as channel:
                answer: bytes = await channel.unary_unary(f"/{method}")(request, timeout=left, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            status = remote_error(error)
            self._metrics.forwarded(method, error.code().name)
            if status is None or reason_of(status) == NOT_OWNER:
                raise _NotAnswered(error.details() or error.code().name, was_refused=status is not None) from error
            raise RemoteError(status) from error
        self._metrics.forwarded(method, "OK")
        return answer


class OwnershipGuard:
    """For calls that come from other nodes."""

    def __init__(self, router: Router, incarnation: UUID) -> None:
        self._router = router
        self._incarnation = str(incarnation)

    async def answer(self, method: str, request: bytes, session_id: str, context: Context) -> bytes | None:
        """None if this node carries it out. Raises Unavailable (NOT_OWNER)."""
        if method not in OWNER_METHODS:
            return None
        # A node of an older release does not say whom it means.
        meant = dict(context.invocation_metadata() or ()).get(_MEANT, self._incarnation)
        if meant == self._incarnation and self._router.is_here(session_id):
            return None
        raise Unavailable(
            f"session {session_id!r} is not run by this node", reason=NOT_OWNER, metadata={"session_id": session_id}
        )


class _NotAnswered(Exception):
    """The node could not be reached, or is not the owner: in its words."""

    def __init__(self, message: str, *, was_refused: bool) -> None:
        """`was_refused`: it said that it is not the owner, so nothing was done for certain."""
        super().__init__(message)
        self.was_refused = was_refused


def _goes_along(key: str, value: str | bytes) -> bool:
    """It may, and can: some clients let through what gRPC refuses to send, and the call must not fail of it."""
    return key in _CARRIED and isinstance(value, str) and value.isascii() and value.isprintable()


def remote_error(error: grpc.aio.AioRpcError) -> Status | None:
    """What the service itself said; None if it was gRPC alone: nobody there, or no answer."""
    try:
        status: Status | None = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:
        return None
    return status if status is not None and reason_of(status) else None


def reason_of(status: Status) -> str:
    """The reason in its ErrorInfo; empty if it has none of ours."""
    for detail in status.details:
        info = details.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return str(info.reason)
    return ""


def _unreachable(holder: LeaseOwner) -> Unavailable:
    return Unavailable(
        f"the session's owner, node {holder.node.name!r}, did not carry this out, or could not say so; look at the"
        " session, or call again with the same request_id",
        reason="OWNER_UNREACHABLE",
        metadata={"node": holder.node.name, "epoch": str(holder.epoch)},
        retry_after=_RETRY_AFTER,
    )
