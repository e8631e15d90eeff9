"""What one caller can take of a node: sizes, calls at once, and what comes before the token is looked at."""

import asyncio
import io
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2 as details
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.api.grpc.limits import HEALTH_STREAMS, LARGEST_REQUEST, READ_TIME, CallLimiter
from service.api.grpc.receiving import receive
from service.domain.errors import Unavailable
from service.telemetry.logging import configure_logging
from tests.fakes.serving import FakeService
from tests.raw_http2 import Connection, Stream, begin_message
from tests.rpc.statuses import all_details, detail, error_info
from zap.v1 import message_pb2, message_pb2_grpc, session_pb2, session_pb2_grpc

TOKEN = "correct-horse"
STREAM_WINDOW = 65_535
"""Bytes that a stream may send at first (RFC 9113, section 6.9.2)."""
SEND, CHECK = "/zap.v1.MessageService/Send", "/grpc.health.v1.Health/Check"


@pytest.fixture
def guarded() -> Iterator[FakeService]:
    with FakeService(TOKEN) as service:
        yield service


@pytest.fixture
def opened() -> Iterator[FakeService]:
    with FakeService() as service:
        yield service


def test_a_request_over_a_mebibyte_is_refused(opened: FakeService) -> None:
    with opened.channel() as channel:
        request = message_pb2.SendRequest(session_id="a", request_id="r", to="4917612345678")
        request.text.body = "x" * LARGEST_REQUEST
        with pytest.raises(grpc.RpcError) as caught:
            message_pb2_grpc.MessageServiceStub(channel).Send(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(LARGEST_REQUEST) in str(caught.value.details())


async def leave_unfinished(address: str, method: str, streams: int) -> list[Stream]:
    """Calls whose bodies lack one byte; those that the server has ended after a while."""
    async with Connection(address) as connection:
        calls = [connection.open(method) for _ in range(streams)]
        size = 900 * 1024
        await asyncio.gather(
            *(connection.send(call, begin_message(size, bytes(size - 1))) for call in calls),
            *(asyncio.wait_for(call.ended.wait(), 20) for call in calls),
        )
        return calls


def test_a_call_without_the_token_is_refused_before_its_body_is_read(guarded: FakeService) -> None:
    calls = asyncio.run(leave_unfinished(guarded.address, SEND, 8))
    # HTTP/2 gives each stream one window, and another one only when what is in the first has been read.
    assert max(call.taken for call in calls) <= STREAM_WINDOW


async def test_a_request_that_does_not_arrive_ends_the_call() -> None:
    ended: asyncio.Queue[grpc.StatusCode] = asyncio.Queue()

    async def handle(_: Any, context: Any) -> bytes:
        try:
            return await receive(context, SEND, 0.1)
        finally:
            ended.put_nowait(context.code())

    server = grpc.aio.server()
    handler: Any = grpc.stream_unary_rpc_method_handler(handle)
    service, method = SEND[1:].split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Connection(f"127.0.0.1:{port}") as connection:
            call = connection.open(SEND)
            await connection.send(call, begin_message(10, b"12345"))
            async with asyncio.timeout(READ_TIME):
                await call.ended.wait()
                assert await ended.get() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(0)


def test_a_call_without_a_request_is_an_invalid_argument(opened: FakeService) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        for part in list[bytes]():
            yield part

    async def call() -> None:
        async with grpc.aio.insecure_channel(opened.address) as channel:
            bare: Any = channel
            await bare.stream_unary(SEND)(nothing(), timeout=10)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        asyncio.run(call())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("channels", [1, 10])
def test_each_call_of_a_burst_is_answered_or_told_when_to_try_again(opened: FakeService, channels: int) -> None:
    async def burst() -> Counter[str]:
        answers: Counter[str] = Counter()
        async with AsyncExitStack() as stack:
            options = (("grpc.use_local_subchannel_pool", 1),)
            stubs: list[Any] = [
                session_pb2_grpc.SessionServiceStub(
                    await stack.enter_async_context(grpc.aio.insecure_channel(opened.address, options=options))
                )
                for _ in range(channels)
            ]

            async def call(stub: Any) -> None:
                try:
                    await stub.List(session_pb2.ListRequest(), timeout=60)
                except grpc.aio.AioRpcError as error:
                    is_told = error.code() is grpc.StatusCode.UNAVAILABLE and detail(error, details.RetryInfo)
                    answers["refused" if is_told else error.code().name] += 1
                else:
                    answers["answered"] += 1

            await asyncio.gather(*(call(stubs[number % channels]) for number in range(2_000)))
        return answers

    answers = asyncio.run(burst())
    assert set(answers) <= {"answered", "refused"}, answers
    assert answers["answered"]


def test_who_finds_no_place_is_told_when_to_try_again() -> None:
    limiter = CallLimiter(1)
    with limiter.slot():
        with pytest.raises(Unavailable) as caught, limiter.slot():
            pass
        assert caught.value.reason == "TOO_MANY_CALLS"
        assert caught.value.retry_after > 0
    with limiter.slot():
        pass


def test_watching_health_without_end_takes_places_of_watching_health_alone(guarded: FakeService) -> None:
    with guarded.channel() as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(HEALTH_STREAMS)]
        for watch in watches:
            next(watch)
        with pytest.raises(grpc.RpcError) as caught:
            next(health.Watch(health_pb2.HealthCheckRequest()))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert error_info(caught.value).reason == "TOO_MANY_CALLS"
        assert detail(caught.value, details.RetryInfo).retry_delay.ToMilliseconds() > 0
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        metadata = (("authorization", f"Bearer {TOKEN}"),)
        session_pb2_grpc.SessionServiceStub(channel).List(session_pb2.ListRequest(), metadata=metadata)
        for watch in watches:
            watch.cancel()


def test_a_long_name_asked_of_health_is_refused(guarded: FakeService) -> None:
    with guarded.channel() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="x" * 1000))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert all_details(caught.value)


def test_a_method_that_is_not_written_is_unimplemented(guarded: FakeService) -> None:
    with guarded.channel() as channel:
        bare: Any = channel
        with pytest.raises(grpc.RpcError) as caught:
            bare.unary_unary("/grpc.health.v1.Health/List")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_compression_is_refused_before_anything_is_unpacked(opened: FakeService) -> None:
    with opened.channel() as channel:
        stub: Any = session_pb2_grpc.SessionServiceStub(channel)
        request = session_pb2.ListRequest(user_id="u" * 100)
        with pytest.raises(grpc.RpcError) as caught:
            stub.List(request, compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_header_that_is_no_text_leaves_no_trace_in_the_log(guarded: FakeService) -> None:
    root, written = logging.getLogger(), io.StringIO()
    kept = root.handlers, root.level
    configure_logging(level="info", readable=False, stream=written)

    async def call() -> None:
        async with Connection(guarded.address) as connection:
            stream = connection.open(CHECK, ("x-anything", "\xff\xfe"))
            await connection.send(stream, begin_message(0), end=True)
            await asyncio.wait_for(stream.ended.wait(), 10)

    try:
        asyncio.run(call())
    finally:
        root.handlers, root.level = kept
        structlog.reset_defaults()
    assert "Invalid encoding" not in written.getvalue()


def test_a_mask_of_many_paths_is_refused(opened: FakeService) -> None:
    with opened.channel() as channel:
        stub = session_pb2_grpc.SessionServiceStub(channel)
        stub.Create(session_pb2.CreateRequest(session_id="a"))
        request = session_pb2.UpdateRequest(session=session_pb2.Session(session_id="a"))
        request.update_mask.paths.extend(["name"] * 101)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Update(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [each.field for each in detail(caught.value, details.BadRequest).field_violations] == ["update_mask"]
