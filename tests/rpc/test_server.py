"""The server around the services: who is admitted, health, reflection, the port, what is counted."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry
from structlog.testing import LogCapture

from service.api.grpc import call_scope
from service.api.grpc.server import CannotListen, Server
from service.domain.caller import ANONYMOUS, TOKEN_HOLDER, Caller
from service.telemetry.metrics import RpcMetrics
from tests.fakes.core import FakeSessions, core_of
from tests.fakes.serving import FakeService
from tests.rpc.statuses import error_info
from zap.node.v1.node_pb2 import Caller as CallerMessage
from zap.v1 import message_pb2, watch_pb2
from zap.v1 import session_pb2 as pb
from zap.v1.message_pb2_grpc import MessageServiceStub
from zap.v1.session_pb2_grpc import SessionServiceStub
from zap.v1.watch_pb2_grpc import EventServiceStub

TOKEN = "correct-horse"
CALLER_KEY = "zap-caller-bin"
SERVICES = ("", "zap.v1.SessionService", "zap.v1.MessageService", "zap.v1.EventService")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def guarded() -> Iterator[FakeService]:
    with FakeService(TOKEN) as service:
        yield service


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer wrong"),),
        (("authorization", TOKEN),),
        (("authorization", "Bearer "),),
        (("authorization", f"Basic {TOKEN}"),),
        (("authorization", f"Bearer {TOKEN}x"),),
        (("authorization", f"Bearer {TOKEN[:-1]}"),),
        (("x-authorization", f"Bearer {TOKEN}"),),
    ],
)
def test_a_call_without_the_token_is_unauthenticated(
    guarded: FakeService, metadata: tuple[tuple[str, str], ...]
) -> None:
    with guarded.channel() as channel:
        bare: Any = channel
        for call in (
            lambda: SessionServiceStub(channel).Create(pb.CreateRequest(session_id="a"), metadata=metadata),
            lambda: next(SessionServiceStub(channel).StreamQR(pb.StreamQRRequest(session_id="a"), metadata=metadata)),
            # Before its bytes are looked at: nobody learns anything without the token.
            lambda: bare.unary_unary("/zap.v1.SessionService/Create")(b"\xff", metadata=metadata),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert error_info(caught.value).reason == "UNAUTHENTICATED"
    assert not guarded.sessions.kept
    assert not guarded.sessions.callers


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_call_with_the_token_is_admitted(guarded: FakeService, scheme: str) -> None:
    with guarded.channel() as channel:
        metadata = (("authorization", f"{scheme} {TOKEN}"),)
        assert SessionServiceStub(channel).Create(pb.CreateRequest(session_id="a"), metadata=metadata).session_id == "a"


@pytest.mark.parametrize(("token", "caller"), [(TOKEN, TOKEN_HOLDER), ("", ANONYMOUS)])
def test_the_core_gets_the_caller_of_each_call_and_the_log_names_it(
    token: str, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not structlog's capture_logs: the module's logger may be bound to another configuration already.
    captured = LogCapture()
    log = structlog.wrap_logger(None, [captured], structlog.make_filtering_bound_logger(0))
    monkeypatch.setattr(call_scope, "log", log)
    # A caller cannot name itself.
    forged = (CALLER_KEY, CallerMessage(id="admin").SerializeToString())
    metadata: Any = (("authorization", f"Bearer {token}"), forged)
    with FakeService(token) as service, service.channel() as channel:
        sessions, sending = SessionServiceStub(channel), MessageServiceStub(channel)
        events: Any = EventServiceStub(channel)
        sessions.Create(pb.CreateRequest(session_id="a"), metadata=metadata)
        sessions.Activate(pb.ActivateRequest(session_id="a"), metadata=metadata)
        service.do(service.sessions.pair, "a")
        list(sessions.StreamQR(pb.StreamQRRequest(session_id="a"), metadata=metadata))
        sent = message_pb2.SendRequest(
            session_id="a", to="+4915100000001", text=message_pb2.Text(body="hello"), request_id="r"
        )
        sending.Send(sent, metadata=metadata)
        sending.Get(message_pb2.GetRequest(session_id="a", request_id="r"), metadata=metadata)
        watch = events.Watch(watch_pb2.WatchRequest(), metadata=metadata)
        next(watch)
        watch.cancel()
        with pytest.raises(grpc.RpcError):
            sessions.Status(pb.StatusRequest(session_id="b"), metadata=metadata)
    assert service.sessions.callers == [caller] * 4
    assert service.sending.callers == [caller] * 2
    assert service.watching.callers == [caller]
    assert len(captured.entries) >= 6
    assert {(line["event"], line["caller"]) for line in captured.entries} == {("call", caller.id)}


def test_health_needs_no_token_and_follows_readiness(guarded: FakeService) -> None:
    with guarded.channel() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for ready, status in ((True, SERVING), (False, NOT_SERVING)):
            guarded.run(guarded.server.set_ready(ready))
            for name in SERVICES:
                assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == status
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="zap.v1.Nothing"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_draining_ends_a_watch_of_health_too(guarded: FakeService) -> None:
    with guarded.channel() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        guarded.run(guarded.server.drain())
        with pytest.raises(grpc.RpcError):
            list(watch)
        assert watch.code() is grpc.StatusCode.UNAVAILABLE
        assert stub.Check(health_pb2.HealthCheckRequest()).status == NOT_SERVING


def test_reflection_needs_the_token_and_names_the_services(guarded: FakeService) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with guarded.channel() as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.ServerReflectionInfo(iter([request])))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        answers = stub.ServerReflectionInfo(iter([request]), metadata=(("authorization", f"Bearer {TOKEN}"),))
        names = {service.name for service in next(answers).list_services_response.service}
    assert set(SERVICES[1:]) <= names


def test_an_unknown_method_is_unimplemented(guarded: FakeService) -> None:
    with guarded.channel() as channel:
        bare: Any = channel
        with pytest.raises(grpc.RpcError) as caught:
            bare.unary_unary("/zap.v1.SessionService/Explode")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_calls_are_counted_by_method_and_code(guarded: FakeService) -> None:
    metadata = (("authorization", f"Bearer {TOKEN}"),)
    with guarded.channel() as channel:
        stub = SessionServiceStub(channel)
        stub.Create(pb.CreateRequest(session_id="a"), metadata=metadata)
        with pytest.raises(grpc.RpcError):
            stub.Status(pb.StatusRequest(session_id="b"), metadata=metadata)
    counted = {
        (sample.labels["method"], sample.labels["code"]): sample.value
        for metric in guarded.registry.collect()
        for sample in metric.samples
        if sample.name == "zap_rpc_calls_total"
    }
    assert counted["zap.v1.SessionService/Create", "OK"] == pytest.approx(1)
    assert counted["zap.v1.SessionService/Status", "NOT_FOUND"] == pytest.approx(1)


def test_a_port_that_is_taken_names_the_setting(guarded: FakeService) -> None:
    sessions = FakeSessions()

    async def second() -> None:
        server = Server(
            core_of(sessions),
            listen=guarded.address,
            token="",
            metrics=RpcMetrics(CollectorRegistry()),
        )
        try:
            await server.start()
        finally:
            await server.stop(0)

    with pytest.raises(CannotListen, match="ZAP_LISTEN"):
        asyncio.run(second())
