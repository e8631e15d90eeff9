"""zap.node.v1.NodeService, both ends of it."""

from typing import Any, Protocol
from uuid import UUID

import grpc

from service.api.grpc.context import Context
from service.api.grpc.forwarding import Channels
from service.domain.errors import Unavailable
from service.domain.handover import CONNECT_WAIT_S
from service.domain.lease import Node
from zap.node.v1 import node_pb2 as pb
from zap.node.v1 import node_pb2_grpc
from zap.node.v1.node_pb2_grpc import NodeServiceServicer

NOTIFY_TIMEOUT_S = 2.0
"""Seconds for a node to hear that a session is its own, beside those that it waits for its arrival."""


class Taker(Protocol):
    """Who takes sessions over (ownership.handover.Taker)."""

    async def expect(self, session_id: str) -> None:
        """Be ready to start a session at once. Raises Unavailable."""

    async def take(self, session_id: str) -> None:
        """Its lease is ours: start it, and wait a moment for it to be connected."""


class NodeServicer(NodeServiceServicer):
    """Translates."""

    def __init__(self, taker: Taker, incarnation: UUID) -> None:
        self._taker = taker
        self._incarnation = str(incarnation)

    async def Expect(self, request: pb.ExpectRequest, context: Context) -> pb.ExpectResponse:  # noqa: D102, N802 - in the proto
        self._check(request.incarnation)
        await self._taker.expect(request.session_id)
        return pb.ExpectResponse()

    async def Take(self, request: pb.TakeRequest, context: Context) -> pb.TakeResponse:  # noqa: D102, N802 - in the proto
        self._check(request.incarnation)
        await self._taker.take(request.session_id)
        return pb.TakeResponse()

    def _check(self, incarnation: str) -> None:
        if incarnation != self._incarnation:
            raise Unavailable("another node has come to this address", reason="NOT_THIS_NODE")


class GrpcHandoverPeers:
    """Other nodes, as a node that stops calls them (ownership.handover.Peers)."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def expect(self, target: Node, session_id: str, timeout: float) -> None:
        """Have it be ready for a session within so many seconds. Raises Unavailable."""
        request = pb.ExpectRequest(session_id=session_id, incarnation=str(target.incarnation))
        await self._call(target, lambda stub: stub.Expect(request, timeout=timeout))

    async def take(self, target: Node, session_id: str) -> None:
        """Tell it that the session's lease is its own, and wait for its arrival. Raises Unavailable."""
        request = pb.TakeRequest(session_id=session_id, incarnation=str(target.incarnation))
        await self._call(target, lambda stub: stub.Take(request, timeout=NOTIFY_TIMEOUT_S + CONNECT_WAIT_S))

    async def _call(self, target: Node, call: Any) -> None:
        # Any: the stubs for synchronous and asynchronous channels are one class.
        channel: Any
        try:
            with self._channels.to(target.address) as channel:
                await call(node_pb2_grpc.NodeServiceStub(channel))
        except grpc.aio.AioRpcError as error:
            words = f"node {target.name!r}: {error.details() or error.code().name}"
            raise Unavailable(words, reason="NODE_UNREACHABLE", metadata={"node": target.name}) from error
