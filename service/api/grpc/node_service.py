"""Serves and calls zap.node.v1.NodeService, by which nodes hand sessions over."""

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
"""RPC timeout for Take, in addition to the target's wait for the session to connect."""


class HandoverReceiver(Protocol):
    """The target side of hand-overs (ownership.handover.HandoverTarget)."""

    async def prepare(self, session_id: str) -> None:
        """Prepare to start a session at once. Raise Unavailable if this node cannot."""

    async def accept(self, session_id: str) -> None:
        """Start a session whose lease is now this node's, and wait up to CONNECT_WAIT_S until it is connected."""


class NodeServicer(NodeServiceServicer):
    """Translates between the proto and the hand-over target."""

    def __init__(self, target: HandoverReceiver, incarnation: UUID) -> None:
        self._target = target
        self._incarnation = str(incarnation)

    async def Expect(self, request: pb.ExpectRequest, context: Context) -> pb.ExpectResponse:  # noqa: D102, N802 - in the proto
        self._check(request.incarnation)
        await self._target.prepare(request.session_id)
        return pb.ExpectResponse()

    async def Take(self, request: pb.TakeRequest, context: Context) -> pb.TakeResponse:  # noqa: D102, N802 - in the proto
        self._check(request.incarnation)
        await self._target.accept(request.session_id)
        return pb.TakeResponse()

    def _check(self, incarnation: str) -> None:
        if incarnation != self._incarnation:
            raise Unavailable("this address now belongs to another node", reason="NOT_THIS_NODE")


class GrpcHandoverPeers:
    """Calls the targets of hand-overs (ownership.handover.HandoverPeers)."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def prepare(self, target: Node, session_id: str, timeout: float) -> None:
        """Make the target ready for a session within `timeout` seconds. Raise Unavailable."""
        request = pb.ExpectRequest(session_id=session_id, incarnation=str(target.incarnation))
        await self._call(target, lambda stub: stub.Expect(request, timeout=timeout))

    async def accept(self, target: Node, session_id: str) -> None:
        """Notify the target that it holds the session's lease, and wait for the connect. Raise Unavailable."""
        request = pb.TakeRequest(session_id=session_id, incarnation=str(target.incarnation))
        await self._call(target, lambda stub: stub.Take(request, timeout=NOTIFY_TIMEOUT_S + CONNECT_WAIT_S))

    async def _call(self, target: Node, call: Any) -> None:
        # Any, because the stubs for synchronous and asynchronous channels are one class.
        channel: Any
        try:
            with self._channels.to(target.address) as channel:
                await call(node_pb2_grpc.NodeServiceStub(channel))
        except grpc.aio.AioRpcError as error:
            message = f"node {target.name!r}: {error.details() or error.code().name}"
            raise Unavailable(message, reason="NODE_UNREACHABLE", metadata={"node": target.name}) from error
