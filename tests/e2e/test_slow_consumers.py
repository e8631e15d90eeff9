"""EventService.Watch under those who do with it what nobody should: the node stays as it was, and so do all others."""

import asyncio
import os
import random
import signal
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import grpc
import psutil
import pytest
from google.rpc import error_details_pb2 as details

from dev import EmbeddedPostgres
from tests.caller import State
from tests.consumer import Consumer
from tests.e2e.test_watching import end_of
from tests.log_writer import LogWriter
from tests.rpc.statuses import detail, error_info
from tests.service_process import ServiceProcess
from zap.v1 import session_pb2, watch_pb2, watch_pb2_grpc

LARGE = 100_000
"""Bytes of an event of which only a few fit into what lies between a node and its consumer."""


async def metric(node: ServiceProcess, name: str) -> float:
    """What the node says of itself."""

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.http_port}/metrics") as page:
            return str(page.read().decode())

    lines = (await asyncio.to_thread(read)).splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


async def wait_for_metric(node: ServiceProcess, name: str, value: float) -> None:
    async with asyncio.timeout(30):
        while await metric(node, name) != value:
            await asyncio.sleep(0.05)


async def take(
    call: "grpc.aio.UnaryStreamCall[watch_pb2.WatchRequest, watch_pb2.WatchResponse]", had: list[int]
) -> None:
    """Note the sequences of all events that come. Raises what ends the stream."""
    while isinstance(response := await call.read(), watch_pb2.WatchResponse):
        if response.HasField("event"):
            had.append(response.event.sequence)


@pytest.mark.timeout(120)
async def test_who_takes_nothing_loses_his_place_and_is_told_so_when_he_takes_again(
    node_environment: Mapping[str, str], database_url: str
) -> None:
    environment = {**node_environment, "ZAP_WATCH_STREAMS": "1", "ZAP_WATCH_PATIENCE": "0.3"}
    async with LogWriter(database_url) as writer, ServiceProcess(environment) as node:
        await writer.append("shop", 200, LARGE)
        request = watch_pb2.WatchRequest(from_start=True)
        asleep = watch_pb2_grpc.EventServiceStub(node.channel).Watch(request)
        await asleep.read()
        early = await end_of(asyncio.create_task(Consumer().watch(node.address)))
        assert early.code() is grpc.StatusCode.UNAVAILABLE
        assert error_info(early).reason == "TOO_MANY_STREAMS"
        assert detail(early, details.RetryInfo).retry_delay.ToMilliseconds() > 0
        await wait_for_metric(node, "zap_watch_streams", 0)
        awake = Consumer(from_start=True)
        async with awake.watching(node.address):
            await awake.wait_for("shop", 200)
        had: list[int] = []
        late = await end_of(asyncio.create_task(take(asleep, had)))
        assert late.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error_info(late).reason == "CONSUMER_TOO_SLOW"
        assert had == list(range(1, len(had) + 1))
        assert len(had) < 200
        resumed = Consumer(resume_token=error_info(late).metadata["resume_token"])
        async with resumed.watching(node.address):
            await resumed.wait_for("shop", 200)
        assert resumed.sequences("shop")[0] <= len(had) + 1, "nothing is between what he had and what he is given"


@pytest.mark.timeout(120)
async def test_streams_that_are_dropped_at_any_moment_leave_nothing(
    node_environment: Mapping[str, str], database_url: str
) -> None:
    async with LogWriter(database_url) as writer, ServiceProcess(node_environment) as node:
        await writer.append("shop", 100)
        descriptors = psutil.Process(node.pid).num_fds()
        chance = random.Random(7)

        async def drop(channel: grpc.aio.Channel) -> None:
            request = watch_pb2.WatchRequest(from_start=True) if chance.random() < 0.5 else watch_pb2.WatchRequest()
            call = watch_pb2_grpc.EventServiceStub(channel).Watch(request)
            await asyncio.sleep(chance.random() * 0.3)
            call.cancel()

        async with grpc.aio.insecure_channel(node.address) as channel:
            await asyncio.gather(*(drop(channel) for _ in range(500)))
        await wait_for_metric(node, "zap_watch_streams", 0)
        assert psutil.Process(node.pid).num_fds() <= descriptors + 10, "connections to the database and of its own"
        consumer = Consumer(from_start=True)
        async with consumer.watching(node.address):
            await consumer.wait_for("shop", 100)
        assert "Traceback" not in node.log()


def processes_of(server: EmbeddedPostgres) -> list[psutil.Process]:
    postmaster = psutil.Process(server.pid)
    return [postmaster, *postmaster.children()]


@pytest.mark.timeout(120)
async def test_a_stream_outlives_a_frozen_and_a_killed_postgres(
    node_environment: Mapping[str, str], server_folder: Path
) -> None:
    folder = server_folder / "postgres-that-is-killed"
    folder.mkdir()
    folder.chmod(0o711)
    async with EmbeddedPostgres(folder, die_with_starter=True) as server:
        consumer = Consumer(from_start=True)
        async with (
            ServiceProcess({**node_environment, "DATABASE_URL": server.url}) as node,
            LogWriter(server.url) as writer,
            consumer.watching(node.address) as watching,
        ):
            await writer.append("shop")
            await consumer.wait_for("shop", 1)
            for process in processes_of(server):
                process.suspend()
            refused = await end_of(asyncio.create_task(Consumer().watch(node.address)))
            for process in processes_of(server):
                process.resume()
            assert error_info(refused).reason == "DATABASE_UNAVAILABLE"
            async with LogWriter(server.url) as another:
                await another.append("market")
            await consumer.wait_for("market", 1)
            os.kill(server.pid, signal.SIGKILL)
            await server.stop()
            await server.start()
            async with LogWriter(server.url) as another:
                await another.append("harbour")
            await consumer.wait_for("harbour", 1)
            assert not watching.done()
        assert [(e.session_id, e.sequence) for e in consumer.events] == [("shop", 1), ("market", 1), ("harbour", 1)]
        assert "Traceback" not in node.log()


@pytest.mark.timeout(120)
async def test_a_session_that_is_deleted_and_made_anew_is_watched_on(node_environment: Mapping[str, str]) -> None:
    async with ServiceProcess(node_environment) as node:
        await node.create("anna", activate=False)
        consumer = Consumer(session_ids=["anna"])
        async with consumer.watching(node.address) as watching:
            for _ in range(3):
                await node.sessions.Activate(session_pb2.ActivateRequest(session_id="anna"))
                await node.wait_state("anna", State.STATE_PAIRING)
                seen = len(consumer.events)
                await node.sessions.Delete(session_pb2.DeleteRequest(session_id="anna"))
                await node.create("anna", activate=False)
            await node.sessions.Activate(session_pb2.ActivateRequest(session_id="anna"))
            await consumer.wait_until(lambda: len(consumer.events) > seen)
            assert not watching.done()
        numbers = consumer.sequences("anna")
        assert numbers == list(range(1, len(numbers) + 1))
