"""What calls cost: `python -m benchmarks.calls`.

Status against an empty grpc.aio handler, and Send over gRPC against a session process called directly, each pair in
one run on one machine. A simulated WhatsApp answers; embedded Postgres and Valkey, fsync off.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from service.domain import observations as seen
from service.ports.processes import SessionProcess, StartOrder
from service.workers.pool import Pool, PoolSettings
from simulator.control import SimulatorControl
from simulator.process import PRELOAD, SimulatorProcess
from tests.caller import State
from tests.contents import text_content
from tests.live_events import LiveEvents
from tests.scenarios.servers import servers
from tests.service_process import ServiceProcess
from zap.v1 import session_pb2, session_pb2_grpc

CALLERS, SECONDS, SENDS = 8, 3.0, 200
FRIEND = "491700000001"


async def answer_at_once(request: session_pb2.StatusRequest, _: object) -> session_pb2.Session:
    """The least that a handler can do."""
    return session_pb2.Session(session_id=request.session_id)


async def rate(channel: grpc.aio.Channel) -> float:
    """Status calls per second, from several callers at once."""
    stub: Any = session_pb2_grpc.SessionServiceStub(channel)
    request = session_pb2.StatusRequest(session_id="shop")
    until = time.perf_counter() + SECONDS

    async def call() -> int:
        count = 0
        while time.perf_counter() < until:
            await stub.Status(request)
            count += 1
        return count

    return sum(await asyncio.gather(*(call() for _ in range(CALLERS)))) / SECONDS


async def latencies(send: Callable[[int], Awaitable[object]]) -> list[float]:
    """Seconds of each of so many calls, one after another."""
    taken = []
    for number in range(SENDS):
        started = time.perf_counter()
        await send(number)
        taken.append(time.perf_counter() - started)
    return sorted(taken)


def tell(name: str, taken: list[float]) -> float:
    """A line of figures; the median."""
    median = statistics.median(taken)
    sys.stdout.write(f"{name:44} median {median * 1000:6.2f} ms   p99 {taken[int(len(taken) * 0.99)] * 1000:6.2f} ms\n")
    return median


async def pair(node: ServiceProcess, whatsapp: SimulatorControl, session_id: str, phone: str) -> None:
    """A connected session."""
    await whatsapp.create_phone(phone, session_id)
    await node.create(session_id)
    await whatsapp.scan(phone, await node.first_code(session_id))
    await node.wait_state(session_id, State.STATE_CONNECTED)


async def status_calls(node: ServiceProcess) -> None:
    """Status on the node and on the empty handler, in turn."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        answer_at_once,
        request_deserializer=session_pb2.StatusRequest.FromString,
        response_serializer=session_pb2.Session.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("zap.v1.SessionService", {"Status": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as empty:
        ours, theirs = [], []
        for _ in range(3):
            ours.append(await rate(node.channel))
            theirs.append(await rate(empty))
    await server.stop(0)
    node_rate, empty_rate = statistics.median(ours), statistics.median(theirs)
    sys.stdout.write(f"Status: {node_rate:.0f}/s, empty handler in this process: {empty_rate:.0f}/s\n")


async def direct_process(url: str, jid: str, environment: Mapping[str, str]) -> tuple[SessionProcess, Pool]:
    """A session process of our own that is connected, and its pool."""
    pool = Pool(PoolSettings(url, preload=PRELOAD), {**os.environ, **environment})
    process = await pool.start(StartOrder("shop", 1, jid, "", time.monotonic() + 600))
    connected = asyncio.Event()

    async def attend() -> None:
        async for batch in process.observations():
            process.confirm(max(observed.number for observed in batch))
            if any(isinstance(observed.observation, seen.Connected) for observed in batch):
                connected.set()

    attending = asyncio.create_task(attend())
    async with asyncio.timeout(10):
        await connected.wait()
    _attending.add(attending)
    return process, pool


#: asyncio keeps only weak references to tasks.
_attending: set[asyncio.Task[None]] = set()


async def sends(node: ServiceProcess, database: str, simulator: SimulatorProcess) -> None:
    """Send over gRPC, then the same session's process called directly."""
    await simulator.control.create_phone(FRIEND, "Friend")
    await node.send("shop", FRIEND, "the first one asks for devices and keys", "warm-up")
    over_grpc = await latencies(lambda number: node.send("shop", FRIEND, "hello", f"request-{number}"))
    jid = (await node.status("shop")).account.jid
    await node.stop()
    process, pool = await direct_process(database, jid, simulator.environment())
    to = f"{FRIEND}@s.whatsapp.net"
    await process.send(to, text_content("the first one asks for devices"), 10)
    direct = await latencies(lambda _: process.send(to, text_content("hello"), 10))
    await pool.close()
    ratio = tell("Send over gRPC", over_grpc) / tell("session process called directly", direct)
    sys.stdout.write(f"{'ratio':44} {ratio:.2f}\n")


async def inbound(node: ServiceProcess, whatsapp: SimulatorControl, live: LiveEvents) -> None:
    """From a phone's writing to the event on Redis: WhatsApp's way, the log and Redis."""
    await whatsapp.create_phone(FRIEND, "Friend")

    async def write(number: int) -> None:
        await whatsapp.write(FRIEND, "491700000000", f"text {number}")
        await live.wait_for("shop", "messageReceived", text=f"text {number}")
        live.events.clear()

    tell("phone writes -> event on Redis", await latencies(write))


async def measure() -> None:
    """All of it."""
    async with (
        servers(durable=False) as there,
        LiveEvents(there.valkey.url) as live,
        ServiceProcess(there.environment(ZAP_LOG_LEVEL="warning")) as node,
    ):
        await pair(node, there.simulator.control, "shop", "491700000000")
        await status_calls(node)
        await inbound(node, there.simulator.control, live)
        await sends(node, there.postgres.url, there.simulator)


if __name__ == "__main__":
    asyncio.run(measure())
