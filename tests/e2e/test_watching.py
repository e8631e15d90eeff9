"""EventService.Watch on real nodes: whoever resumes has everything once and in order, whatever dies meanwhile."""

import asyncio
import signal
import sys

import asyncpg
import grpc
import pytest
from google.rpc import error_details_pb2 as details

from simulator.control import SimulatorControl
from tests.consumer import Consumer
from tests.e2e.cluster import cluster
from tests.e2e.sql import Sql
from tests.event_log import read_messages
from tests.live_events import LiveEvents
from tests.log_writer import LogWriter
from tests.rpc.statuses import detail, error_info
from tests.service_process import ServiceProcess
from tests.tcp_proxy import Line, TcpProxy
from zap.v1 import session_pb2

LARGE = 100_000
"""Bytes of an event of which only a few fit into what lies between a node and its consumer."""
NOBODY_THERE = "redis://127.0.0.1:1"


async def end_of(watching: "asyncio.Task[None]") -> grpc.aio.AioRpcError:
    """What a stream ended with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(30):
            await watching
    return caught.value


@pytest.mark.timeout(180)
async def test_a_consumer_whose_node_is_killed_goes_on_on_another_and_has_everything_once(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with cluster(node_environment, simulator, 2, on_first=True) as there:
        _, serving, other = there.nodes
        consumer = Consumer(from_start=True)
        async with there.traffic(20.0) as traffic:
            async with consumer.watching(serving.address) as watching:
                await traffic.reach(10)
                await consumer.wait_until(lambda: all(consumer.texts(name) for name in there.sessions))
                await serving.kill_node()
                assert (await end_of(watching)).code() is grpc.StatusCode.UNAVAILABLE
            await traffic.reach(10)
            async with consumer.watching(other.address):
                await traffic.reach(10)
        async with consumer.watching(other.address):
            await there.assert_log_is_whole(sql, traffic.written)
            for name, logged in (await read_messages(sql)).items():
                texts = [message.text for message in logged]
                await consumer.wait_until(lambda name=name, texts=texts: consumer.texts(name) == texts)  # type: ignore[misc]
                numbers = consumer.sequences(name)
                assert numbers == list(range(1, len(numbers) + 1))
        assert consumer.repeated == 0, "it has resumed after the last response that it had"


@pytest.mark.timeout(120)
async def test_a_node_that_stops_says_where_to_go_on_and_is_kept_by_nobody(
    node_environment: dict[str, str], database_url: str
) -> None:
    async with LogWriter(database_url) as writer, ServiceProcess(node_environment) as node:
        await writer.append("shop", 100, LARGE)
        at_rest, stalled = Consumer(), Consumer(from_start=True)
        async with at_rest.watching(node.address) as resting, stalled.watching(node.address, pause=3600):
            assert await node.stop() == 0
            error = await end_of(resting)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error_info(error).reason == "NODE_DRAINING"
        assert detail(error, details.RetryInfo).retry_delay.ToMilliseconds() > 0
        await writer.append("shop", 1)
        async with ServiceProcess(node_environment) as successor, at_rest.watching(successor.address):
            await at_rest.wait_for("shop", 101)
        assert at_rest.sequences("shop") == [101]


@pytest.mark.timeout(120)
async def test_without_redis_events_come_all_the_same(node_environment: dict[str, str], database_url: str) -> None:
    environment = {**node_environment, "REDIS_URL": NOBODY_THERE}
    async with LogWriter(database_url) as writer, ServiceProcess(environment) as node:
        consumer = Consumer()
        async with consumer.watching(node.address):
            for sequence in (1, 2, 3):
                await writer.append("shop")
                await consumer.wait_for("shop", sequence)
        assert consumer.sequences("shop") == [1, 2, 3]


@pytest.mark.timeout(120)
async def test_an_outage_of_postgres_is_silence_for_who_watches_and_a_no_for_who_begins(
    node_environment: dict[str, str], database_url: str
) -> None:
    async with LogWriter(database_url) as writer, TcpProxy(database_url) as proxy:
        environment = {
            **node_environment,
            "DATABASE_URL": proxy.url,
            "ZAP_WHATSAPP_DATABASE_URL": database_url,
            "REDIS_URL": NOBODY_THERE,
        }
        async with ServiceProcess(environment) as node:
            consumer, late = Consumer(), Consumer()
            async with consumer.watching(node.address) as watching:
                await writer.append("shop")
                await consumer.wait_for("shop", 1)
                await proxy.set(Line.CUT)
                error = await end_of(asyncio.create_task(late.watch(node.address)))
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert error_info(error).reason == "DATABASE_UNAVAILABLE"
                assert detail(error, details.RetryInfo).retry_delay.ToMilliseconds() > 0
                await writer.append("shop")
                assert not watching.done()
                assert consumer.sequences("shop") == [1]
                await proxy.set(Line.OPEN)
                await consumer.wait_for("shop", 2)
            assert consumer.sequences("shop") == [1, 2]
            assert not late.events
            assert not late.bookmarks


@pytest.mark.timeout(120)
async def test_who_takes_events_too_slowly_is_told_so_and_keeps_nobody_else(
    node_environment: dict[str, str], database_url: str
) -> None:
    environment = {**node_environment, "ZAP_WATCH_PATIENCE": "1"}
    async with LogWriter(database_url) as writer, ServiceProcess(environment) as node:
        slow, quick = Consumer(), Consumer()
        async with quick.watching(node.address) as watching, slow.watching(node.address, pause=0.1) as dragging:
            written = 0
            while not dragging.done():
                # Nobody tells the node: it looks twice a second, and finds more than the slow one takes until then.
                await writer.append("shop", 20, LARGE)
                written += 20
                await quick.wait_for("shop", written)
            error = await end_of(dragging)
            assert not watching.done()
            assert quick.sequences("shop") == list(range(1, written + 1))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error_info(error).reason == "CONSUMER_TOO_SLOW"
        assert 0 < len(slow.events) < written
        assert error_info(error).metadata["resume_token"] == slow.token, "of the last response"
        async with slow.watching(node.address):
            await slow.wait_for("shop", written)
        assert slow.sequences("shop") == list(range(1, written + 1))
        assert slow.repeated == 0


@pytest.mark.timeout(120)
async def test_an_open_transaction_elsewhere_holds_watch_and_not_redis_whose_tokens_miss_nothing(
    node_environment: dict[str, str], database_url: str, live: LiveEvents
) -> None:
    elsewhere = await asyncpg.connect(database_url.rpartition("/")[0] + "/postgres")
    try:
        async with ServiceProcess(node_environment) as node:
            consumer = Consumer()
            async with consumer.watching(node.address):
                held = elsewhere.transaction()
                await held.start()
                await elsewhere.execute("CREATE TABLE held (number int)")
                await node.create("anna")
                told = await live.wait_for("anna", "stateChanged")
                # Bookmarks are caught up all the same, and below what is held.
                assert not consumer.events
                resumed = Consumer(resume_token=told["resumeToken"])
                async with resumed.watching(node.address):
                    assert not resumed.events
                    await held.rollback()
                    for each in (consumer, resumed):
                        await each.wait_for("anna", int(told["sequence"]))
                        assert each.sequences("anna")[0] == 1
    finally:
        await elsewhere.close()


@pytest.mark.timeout(120)
async def test_who_watches_by_user_or_label_sees_sessions_that_come_later(node_environment: dict[str, str]) -> None:
    async with ServiceProcess(node_environment) as node:
        wanted, unwanted = Consumer(user_id="ada", labels={"team": "red"}), Consumer(user_id="bob")
        async with wanted.watching(node.address), unwanted.watching(node.address):
            await node.sessions.Create(
                session_pb2.CreateRequest(session_id="anna", user_id="ada", labels={"team": "red"})
            )
            await node.sessions.Activate(session_pb2.ActivateRequest(session_id="anna"))
            await wanted.wait_for("anna", 1)
            await node.sessions.Delete(session_pb2.DeleteRequest(session_id="anna"))
            assert not unwanted.events


@pytest.mark.timeout(120)
async def test_zapctl_watches_on_when_its_node_is_restarted_and_says_where_to_resume(
    node_environment: dict[str, str], database_url: str
) -> None:
    node = ServiceProcess(node_environment)
    async with LogWriter(database_url) as writer, node:
        await writer.append("shop", 2)
        zapctl = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service.cli", "--address", node.address, "watch", "shop", "--from-start"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert zapctl.stdout is not None
        lines = [await zapctl.stdout.readline() for _ in range(2)]
        await node.kill_all()
        await writer.append("shop")
        await node.start()
        await node.wait_ready()
        lines.append(await zapctl.stdout.readline())
        zapctl.send_signal(signal.SIGINT)
        rest, beside = await zapctl.communicate()
        assert zapctl.returncode == 0
        assert not rest
        assert [line.split()[3:6] for line in lines] == [[b"shop", b"%d" % n, b"MESSAGE_RECEIVED"] for n in (1, 2, 3)]
        token = beside.decode().splitlines()[-1].removeprefix("resume with --resume ")
        await writer.append("shop")
        resumed = Consumer(resume_token=token)
        async with resumed.watching(node.address):
            await resumed.wait_for("shop", 4)
        # The line on which it was interrupted may come again: at least once, never less.
        assert resumed.sequences("shop") in ([4], [3, 4])
