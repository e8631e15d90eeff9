"""Between nodes: who is let in, what is passed on, and what a caller is told when the owner does not answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast
from uuid import UUID, uuid4

import grpc
import pytest
from prometheus_client import CollectorRegistry

from service.api.grpc.context import AdmittedContext
from service.api.grpc.forwarding import Forwarder, OwnershipGuard
from service.api.grpc.node_service import GrpcHandoverPeers
from service.api.grpc.nodes import NodeChannels, NodeListener
from service.api.grpc.server import CannotListen, Server
from service.auth.node_certificates import NodeCertificate
from service.domain.caller import ANONYMOUS, TOKEN_HOLDER, Caller
from service.domain.errors import FailedPrecondition, Unavailable
from service.domain.lease import LeaseOwner, Node
from service.ownership.router import Router
from service.ports.leases import Directory
from service.telemetry.metrics import RpcMetrics
from tests.eventually import eventually
from tests.fakes.core import FakeSessions, core_of, fake_media
from tests.rpc.statuses import error_info
from zap.node.v1.node_pb2 import Caller as NamedCaller
from zap.v1 import session_pb2 as pb
from zap.v1.session_pb2_grpc import SessionServiceStub

SECRET = "a secret of all nodes"
CALLER_KEY = "zap-caller-bin"


class Overhearing(OwnershipGuard):
    """Remembers what came along with each call."""

    def __init__(self, router: Router, incarnation: UUID, heard: list[dict[str, str | bytes]]) -> None:
        super().__init__(router, incarnation)
        self._heard = heard

    async def answer(self, method: str, request: bytes, session_id: str, context: AdmittedContext) -> bytes | None:
        self._heard.append(dict(context.invocation_metadata() or ()))
        return await super().answer(method, request, session_id, context)


class Place:
    """A node: what callers reach, what other nodes reach, and a core in memory."""

    def __init__(self, secret: str = SECRET, advertise: str = "", token: str = "") -> None:
        self.incarnation = uuid4()
        self.sessions = FakeSessions()
        self.owned: set[str] = set()
        self.holders: list[LeaseOwner | None] = []
        """What the database answers, one after the other; the last one for ever."""
        self.asked = 0
        self.expects: set[str] = set()
        self.taken: list[str] = []
        self.heard: list[dict[str, str | bytes]] = []
        media = fake_media(self.sessions)
        self.uploads = media[0]
        core, self.registry = core_of(self.sessions, media=media), CollectorRegistry()
        metrics, certificate = RpcMetrics(self.registry), NodeCertificate.signed_by(secret)
        router = Router(cast(Directory, self), self.incarnation, self.owned.__contains__)
        self.channels = NodeChannels(certificate)
        self.listener = NodeListener(
            core,
            Overhearing(router, self.incarnation, self.heard),
            self,
            self.incarnation,
            certificate,
            listen="127.0.0.1:0",
            advertise=advertise,
            database_hosts=[],
            metrics=metrics,
        )
        self.forwarding = Forwarder(router, self.channels, metrics)
        self.server = Server(
            core,
            listen="127.0.0.1:0",
            token=token,
            metrics=metrics,
            remote_calls=self.forwarding,
        )
        self.address = ""

    async def holder(self, session_id: str) -> LeaseOwner | None:
        self.asked += 1
        return self.holders.pop(0) if len(self.holders) > 1 else self.holders[0]

    async def prepare(self, session_id: str) -> None:
        if session_id not in self.expects:
            raise Unavailable("no room", reason="NODE_FULL")

    async def accept(self, session_id: str) -> None:
        self.taken.append(session_id)

    @property
    def holds(self) -> LeaseOwner:
        """It, as another node knows it."""
        return LeaseOwner(Node(self.incarnation, "owner", self.listener.address), 3)

    async def own(self, session_id: str) -> None:
        """A session that is run here."""
        channel = grpc.aio.insecure_channel(self.address)
        await SessionServiceStub(channel).Create(pb.CreateRequest(session_id=session_id))
        await SessionServiceStub(channel).Activate(pb.ActivateRequest(session_id=session_id))
        await channel.close()
        self.owned.add(session_id)


@asynccontextmanager
async def place(secret: str = SECRET, advertise: str = "", token: str = "") -> AsyncIterator[Place]:
    made = Place(secret, advertise, token)
    await made.listener.start()
    made.address = f"127.0.0.1:{await made.server.start()}"
    await made.server.set_ready(True)
    try:
        yield made
    finally:
        await made.server.stop(0)
        await made.listener.stop(0)
        await made.channels.close()


async def restart(
    at: Place, session_id: str = "anna", timeout: float = 10.0, forged: bytes = b"", **metadata: str
) -> pb.Session:
    items: list[tuple[str, str | bytes]] = [*metadata.items(), *([(CALLER_KEY, forged)] if forged else [])]
    async with grpc.aio.insecure_channel(at.address) as channel:
        request = pb.RestartRequest(session_id=session_id)
        return await SessionServiceStub(channel).Restart(request, timeout=timeout, metadata=items)


def carried_out(by: Place, code: str) -> float:
    """How many times it was asked to restart a session and that ended like this."""
    labels = {"method": "zap.v1.SessionService/Restart", "code": code}
    return by.registry.get_sample_value("zap_rpc_calls_total", labels) or 0.0


async def test_a_call_for_the_owner_is_carried_out_by_the_owner() -> None:
    async with place() as owner, place() as other:
        await owner.own("anna")
        other.holders = [owner.holds]
        session = await restart(other)
        assert session.session_id == "anna"
        assert "anna" not in other.sessions.kept
        value = other.registry.get_sample_value
        labels = {"method": "zap.v1.SessionService/Restart", "code": "OK"}
        assert value("zap_rpc_forwarded_total", labels) == 1


async def test_the_owner_gets_the_caller_whom_the_other_node_admitted() -> None:
    async with place() as owner, place(token="a long secret") as other:
        await owner.own("anna")
        other.holders = [owner.holds]
        owner.sessions.callers.clear()
        await restart(other, authorization="Bearer a long secret")
        assert owner.sessions.callers == [TOKEN_HOLDER]
        # The caller cannot name itself: a node passes on whom it admitted, and a public port reads no name.
        forged = NamedCaller(id="admin").SerializeToString()
        await restart(other, authorization="Bearer a long secret", forged=forged)
        await restart(owner, forged=forged)
        assert owner.sessions.callers == [TOKEN_HOLDER, TOKEN_HOLDER, ANONYMOUS]
    async with place() as owner, place() as other:
        await owner.own("anna")
        other.holders = [owner.holds]
        owner.sessions.callers.clear()
        await restart(other)
        assert owner.sessions.callers == [ANONYMOUS]


async def test_a_caller_of_a_newer_release_is_passed_on_by_its_name() -> None:
    async with place() as owner, place() as other:
        await owner.own("anna")
        owner.sessions.callers.clear()
        with other.channels.to(owner.listener.address) as channel:
            request, name = pb.RestartRequest(session_id="anna"), NamedCaller(id="key-7").SerializeToString()
            # With a field that this release does not know.
            for value in (name, name + b"\xfa\x01\x01x"):
                await SessionServiceStub(channel).Restart(request, timeout=5, metadata=((CALLER_KEY, value),))
        assert owner.sessions.callers == [Caller("key-7")] * 2


@pytest.mark.parametrize("value", [b"", b"\xff", NamedCaller().SerializeToString()])
async def test_a_call_that_names_its_caller_unreadably_is_refused(value: bytes) -> None:
    async with place() as owner, place() as other:
        await owner.own("anna")
        owner.sessions.callers.clear()
        with other.channels.to(owner.listener.address) as channel:
            request = pb.RestartRequest(session_id="anna")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await SessionServiceStub(channel).Restart(request, timeout=5, metadata=((CALLER_KEY, value),))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert not owner.sessions.callers


async def test_what_the_owner_says_is_said_as_it_is() -> None:
    async with place() as owner, place() as other:
        await owner.own("anna")
        owner.sessions.store.broken = FailedPrecondition(
            "not now", reason="SESSION_NOT_ACTIVE", metadata={"state": "x"}
        )
        other.holders = [owner.holds]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await restart(other)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        info = error_info(refused.value)
        assert (info.reason, dict(info.metadata)) == ("SESSION_NOT_ACTIVE", {"state": "x"})


async def test_an_owner_that_changed_meanwhile_is_asked_once_more() -> None:
    async with place() as before, place() as between, place() as owner, place() as other:
        await owner.own("anna")
        other.holders = [before.holds, owner.holds]
        assert (await restart(other)).session_id == "anna"
        assert other.asked == 2
        # And no more than once.
        other.holders, other.asked = [before.holds, between.holds, owner.holds], 0
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await restart(other)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert error_info(refused.value).reason == "OWNER_UNREACHABLE"
        assert other.asked == 2


async def test_an_owner_that_is_gone_is_told() -> None:
    async with place() as owner, place() as other:
        other.holders = [owner.holds]
        await owner.listener.stop(0)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await restart(other)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert error_info(refused.value).reason == "OWNER_UNREACHABLE"
    assert "retry" in str(refused.value.trailing_metadata()).lower() or "RetryInfo" in str(refused.value)


async def test_what_may_have_been_done_is_not_asked_for_again() -> None:
    async with place() as gone, place() as owner, place() as other:
        await owner.own("anna")
        await gone.listener.stop(0)
        # A cut in the middle of a call and nobody there look the same.
        other.holders = [gone.holds, owner.holds]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await restart(other)
        assert error_info(refused.value).reason == "OWNER_UNREACHABLE"
        assert other.asked == 1


async def test_nodes_serve_each_other_nothing_that_needs_a_token() -> None:
    async with place() as owner, place() as other:
        await owner.own("anna")
        with other.channels.to(owner.listener.address) as channel:
            stub = SessionServiceStub(channel)
            for call in (
                stub.Delete(pb.DeleteRequest(session_id="anna", force=True), timeout=5),
                stub.Status(pb.StatusRequest(session_id="anna"), timeout=5),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
                assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_what_nobody_owns_is_answered_here() -> None:
    async with place() as other:
        await other.own("anna")
        other.owned.clear()
        other.holders = [None]
        assert (await restart(other)).session_id == "anna"


async def test_who_came_to_the_owner_s_address_after_it_does_not_answer_for_it() -> None:
    async with place() as successor, place() as other:
        # It has a session of this id, of another database for instance: nobody there meant it.
        await successor.own("anna")
        there = successor.holds
        other.holders = [replace(there, node=replace(there.node, incarnation=uuid4()))]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await restart(other)
        assert error_info(refused.value).reason == "OWNER_UNREACHABLE"
        assert not carried_out(successor, "OK")


async def test_a_node_of_before_that_names_nobody_is_answered() -> None:
    async with place() as owner, place() as other:
        await owner.own("anna")
        owner.sessions.callers.clear()
        with other.channels.to(owner.listener.address) as channel:
            request = pb.RestartRequest(session_id="anna")
            assert (await SessionServiceStub(channel).Restart(request, timeout=5)).session_id == "anna"
        # Nor does it name the caller. In its release there was one kind.
        assert owner.sessions.callers == [TOKEN_HOLDER]


async def test_a_caller_who_hangs_up_is_heard_by_the_owner() -> None:
    async with place() as owner, place() as other:
        await owner.own("anna")
        other.holders = [owner.holds]
        begun = asyncio.Event()

        async def takes_for_ever(_: str) -> None:
            begun.set()
            await asyncio.sleep(60)

        owner.sessions.restart = takes_for_ever  # type: ignore[method-assign,assignment]
        calling = asyncio.create_task(restart(other, timeout=30))
        await asyncio.wait_for(begun.wait(), 5)
        calling.cancel()
        await eventually(lambda: carried_out(owner, "CANCELLED"), timeout=5)


class OddContext:
    """Of a caller whose client lets through what gRPC in Python does not."""

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        refused = (("baggage", "name=Zoë"), ("x-request-id", b"\xff"), ("tracestate", "a\tb"))
        return (*refused, ("traceparent", "00-1-2-01"))

    def time_remaining(self) -> None:
        return None


async def test_a_trace_goes_along_and_a_token_does_not() -> None:
    async with place() as owner, place() as other:
        await owner.own("anna")
        other.holders = [owner.holds]
        await restart(other, traceparent="00-1-2-01", authorization="Bearer t")
        assert owner.heard[-1]["traceparent"] == "00-1-2-01"
        assert "authorization" not in owner.heard[-1]


async def test_what_no_header_can_hold_is_left_out_and_the_call_passed_on() -> None:
    async with place() as owner, place() as other:
        await owner.own("anna")
        other.holders = [owner.holds]
        request = pb.RestartRequest(session_id="anna").SerializeToString()
        admitted = AdmittedContext(OddContext(), ANONYMOUS)  # type: ignore[arg-type]
        method = "zap.v1.SessionService/Restart"
        answer = await other.forwarding.answer(method, request, "anna", admitted)
        assert answer is not None
        assert pb.Session.FromString(answer).session_id == "anna"
        assert owner.heard[-1]["traceparent"] == "00-1-2-01"
        assert not {"baggage", "x-request-id", "tracestate"} & owner.heard[-1].keys()


@pytest.mark.parametrize("secret", ["", "another secret"])
async def test_nodes_of_another_secret_are_no_nodes(secret: str) -> None:
    async with place() as owner, place(secret) as stranger:
        await owner.own("anna")
        stranger.holders = [owner.holds]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await restart(stranger)
        assert error_info(refused.value).reason == "OWNER_UNREACHABLE"
        assert not carried_out(owner, "OK")


@pytest.mark.parametrize("credentials", ["none", "no certificate of its own"])
async def test_who_shows_no_certificate_is_not_let_in(credentials: str) -> None:
    async with place() as owner:
        await owner.own("anna")
        authority = NodeCertificate.signed_by(SECRET).authority
        options = (("grpc.ssl_target_name_override", "zap-node"),)
        channel = (
            grpc.aio.insecure_channel(owner.listener.address)
            if credentials == "none"
            else grpc.aio.secure_channel(
                owner.listener.address, grpc.ssl_channel_credentials(authority), options=options
            )
        )
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await SessionServiceStub(channel).Restart(pb.RestartRequest(session_id="anna"), timeout=5)
        assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_a_deadline_goes_along() -> None:
    async with place() as owner, place() as other:
        await owner.own("anna")
        other.holders = [owner.holds]
        owner.sessions.restart = lambda _: asyncio.sleep(60)  # type: ignore[method-assign,assignment,return-value]
        began = asyncio.get_running_loop().time()
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await restart(other, timeout=0.5)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert asyncio.get_running_loop().time() - began < 5
        # The owner's part of it is over as well.
        await eventually(lambda: carried_out(owner, "CANCELLED"), timeout=5)


@asynccontextmanager
async def nobody_any_more() -> AsyncIterator[tuple[str, list[float]]]:
    """An address where a node was, and when it was knocked at since."""
    knocks: list[float] = []

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocks.append(asyncio.get_running_loop().time())
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", knocks


async def test_a_node_that_is_gone_is_not_knocked_at_for_ever() -> None:
    async with nobody_any_more() as (address, knocks):
        channels = NodeChannels(NodeCertificate.signed_by(SECRET), idle=2.5)
        with pytest.raises(Unavailable):
            await GrpcHandoverPeers(channels).accept(Node(uuid4(), "gone", address), "anna")
        await eventually(lambda: len(knocks) >= 2, timeout=10)
        assert len(channels) == 1
        await eventually(lambda: not len(channels), timeout=10)
        # One may be under way.
        await asyncio.sleep(0.2)
        before = len(knocks)
        await asyncio.sleep(2.5)
        assert len(knocks) == before


async def test_a_channel_is_kept_while_somebody_calls_on_it_and_made_anew_afterwards() -> None:
    async with place() as owner:
        await owner.own("anna")
        channels = NodeChannels(NodeCertificate.signed_by(SECRET), idle=0.1)
        for _ in range(2):
            with channels.to(owner.listener.address) as first, channels.to(owner.listener.address) as second:
                assert first is second
                await asyncio.sleep(0.3)
                assert (await SessionServiceStub(first).Restart(pb.RestartRequest(session_id="anna"))).session_id
            with channels.to(owner.listener.address) as again:
                assert again is first
            await eventually(lambda: not len(channels), timeout=5)
        # Closed under a call, nothing is left of it either.
        with channels.to(owner.listener.address):
            await channels.close()
        await asyncio.sleep(0.2)
        assert len(channels) == 0


async def test_a_node_is_asked_to_take_a_session_and_told_that_it_is_its_own() -> None:
    async with place() as target, place() as giver:
        peers = GrpcHandoverPeers(giver.channels)
        with pytest.raises(Unavailable, match="no room"):
            await peers.prepare(target.holds.node, "anna", 5)
        target.expects.add("anna")
        await peers.prepare(target.holds.node, "anna", 5)
        await peers.accept(target.holds.node, "anna")
        assert target.taken == ["anna"]
        with pytest.raises(Unavailable, match="another node"):
            await peers.prepare(replace(target.holds.node, incarnation=uuid4()), "anna", 5)
        await target.listener.stop(0)
        with pytest.raises(Unavailable) as gone:
            await peers.accept(target.holds.node, "anna")
        assert gone.value.reason == "NODE_UNREACHABLE"


async def test_port_0_is_advertised_as_the_one_that_was_chosen() -> None:
    async with place(advertise="localhost:0") as owner, place() as other:
        host, _, port = owner.listener.address.rpartition(":")
        assert host == "localhost"
        assert int(port) > 0
        await owner.own("anna")
        other.holders = [owner.holds]
        assert (await restart(other)).session_id == "anna"
    async with place(advertise="zap-1.example:7000") as behind_a_translation:
        assert behind_a_translation.listener.address == "zap-1.example:7000"


async def test_a_port_that_somebody_else_has_is_named() -> None:
    async with place() as owner:
        core = core_of(owner.sessions)
        router = Router(cast(Directory, owner), owner.incarnation, owner.owned.__contains__)
        with pytest.raises(CannotListen, match="ZAP_NODE_LISTEN"):
            NodeListener(
                core,
                OwnershipGuard(router, owner.incarnation),
                owner,
                owner.incarnation,
                NodeCertificate.signed_by(SECRET),
                listen=owner.listener.address,
                advertise="",
                database_hosts=[],
                metrics=RpcMetrics(CollectorRegistry()),
            )
