"""How soon a subscriber has what happens, and what subscribers cost: `python -m benchmarks.watch`.

From the beginning of the WhatsApp library's callback in a session process to a Watch subscriber on another node, by the
clock of this machine: at rest, and at 8 sessions with 5 messages a second each, in turn or all in one moment (which is
how long eight messages stand in line for this machine's processors); then the first beside 500 streams that are idle,
and what those cost the node. A simulated WhatsApp; embedded Postgres and Valkey, fsync off.
"""

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import grpc
import psutil

from benchmarks.inside_callback import FOLDER
from simulator.control import SimulatorControl
from tests.e2e.cluster import SECRET
from tests.e2e.pairing_helpers import pair
from tests.scenarios.servers import servers
from tests.service_process import ServiceProcess
from zap.v1 import event_pb2, watch_pb2, watch_pb2_grpc

if TYPE_CHECKING:
    from zap.v1.watch_pb2_grpc import EventServiceAsyncStub

LIMIT = 0.020
"""Seconds: the design's bound for the 99th percentile."""
SESSIONS, RATE, SECONDS, AT_REST = 8, 5.0, 20.0, 100
IDLE_STREAMS, STREAMS_PER_CHANNEL = 500, 50
FRIEND = "491700000001"

_numbers = itertools.count(1)


class Subscriber:
    """A stream that notes when each text came."""

    def __init__(self) -> None:
        self.came: dict[str, float] = {}
        self._arrived = asyncio.Event()

    @asynccontextmanager
    async def on(self, node: ServiceProcess) -> AsyncIterator[None]:
        """Subscribed to a node, from its first response on."""
        stub: EventServiceAsyncStub = watch_pb2_grpc.EventServiceStub(node.channel)
        call = stub.Watch(watch_pb2.WatchRequest())
        await call.read()
        reading = asyncio.create_task(self._read(call))
        yield
        reading.cancel()
        call.cancel()

    async def _read(self, call: "grpc.aio.UnaryStreamCall[watch_pb2.WatchRequest, watch_pb2.WatchResponse]") -> None:
        # Whoever has called read() must not iterate.
        while isinstance(response := await call.read(), watch_pb2.WatchResponse):
            self.came[response.event.message_received.text] = time.time()
            self._arrived.set()

    async def wait_for(self, texts: Sequence[str]) -> None:
        """Until all of them came."""
        async with asyncio.timeout(60):
            while not self.came.keys() >= set(texts):
                self._arrived.clear()
                await self._arrived.wait()


class Scene:
    """Two nodes: one owns the sessions, the subscriber is on the other."""

    def __init__(self, whatsapp: SimulatorControl, there: ServiceProcess, database: str, folder: Path) -> None:
        self._whatsapp = whatsapp
        self._database = database
        self._folder = folder
        self.there = there
        self.subscriber = Subscriber()

    async def write(self, phone: str) -> str:
        """One text of a friend, that is to be timed."""
        text = f"timed {next(_numbers)}"
        await self._whatsapp.write(FRIEND, phone, text)
        return text

    async def at_rest(self) -> list[str]:
        """One after the other, each a moment after the one before has come."""
        texts = []
        for _ in range(AT_REST):
            texts.append(await self.write(_phone(0)))
            await self.subscriber.wait_for(texts[-1:])
            await asyncio.sleep(0.05)
        return texts

    async def under_traffic(self, *, at_once: bool = False) -> list[str]:
        """All sessions at a steady pace, each in its turn, or (`at_once`) all of them in the same moment."""
        began = time.monotonic()

        async def one(number: int) -> list[str]:
            texts = []
            for turn in range(int(RATE * SECONDS)):
                due = began + (turn + (0 if at_once else number / SESSIONS)) / RATE
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                texts.append(await self.write(_phone(number)))
            return texts

        written = await asyncio.gather(*(one(number) for number in range(SESSIONS)))
        texts = [text for some in written for text in some]
        await self.subscriber.wait_for(texts)
        return texts

    async def tell(self, what: str, texts: Sequence[str]) -> None:
        """A line of figures: all of the way, and the part of it that ends when Postgres has the event."""
        called, appended = self._callbacks(), await self._appended()
        taken = sorted(self.subscriber.came[text] - called[text] for text in texts)
        until = sorted(appended[text] - called[text] for text in texts)
        p99, p99_until = (some[int(len(some) * 0.99)] for some in (taken, until))
        sys.stdout.write(
            f"{what:36} median {statistics.median(taken) * 1000:6.2f} ms   p99 {p99 * 1000:6.2f} ms"
            f"   limit {LIMIT * 1000:.0f} ms: {'kept' if p99 <= LIMIT else 'MISSED'}   ({len(taken)} messages;"
            f" appended after {statistics.median(until) * 1000:.2f} ms, p99 {p99_until * 1000:.2f})\n"
        )

    async def _appended(self) -> Mapping[str, float]:
        connection = await asyncpg.connect(self._database)
        rows = await connection.fetch("SELECT payload, appended_at FROM zap.event WHERE type = 'MESSAGE_RECEIVED'")
        await connection.close()
        messages = [(event_pb2.Event.FromString(row["payload"]).message_received, row["appended_at"]) for row in rows]
        return {message.text: moment.timestamp() for message, moment in messages}

    def _callbacks(self) -> Mapping[str, float]:
        lines = [line for file in self._folder.iterdir() for line in file.read_text().splitlines()]
        return {text: float(moment) for text, _, moment in (line.rpartition(" ") for line in lines)}


async def idle_streams(stack: AsyncExitStack, node: ServiceProcess) -> None:
    """Open them, each beyond its first response; filters that nothing passes."""
    request = watch_pb2.WatchRequest(user_id="nobody")
    for _ in range(IDLE_STREAMS // STREAMS_PER_CHANNEL):
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(node.address))
        stub: EventServiceAsyncStub = watch_pb2_grpc.EventServiceStub(channel)
        calls = [stub.Watch(request) for _ in range(STREAMS_PER_CHANNEL)]
        for call in calls:
            stack.callback(call.cancel)
        await asyncio.gather(*(call.read() for call in calls))


async def cost(node: ServiceProcess) -> tuple[float, int]:
    """Processor seconds a second, over ten of them, and private bytes, of the node itself."""
    process = psutil.Process(node.pid)
    before = process.cpu_times()
    await asyncio.sleep(10)
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return used / 10, process.memory_full_info().uss


async def run(scene: Scene) -> None:
    """All measurements."""
    async with scene.subscriber.on(scene.there):
        await scene.at_rest()  # the first ones find nothing warm
        await scene.tell("at rest", await scene.at_rest())
        await scene.tell(f"{SESSIONS} sessions x {RATE:g}/s", await scene.under_traffic())
        await scene.tell("the same, all in one moment", await scene.under_traffic(at_once=True))
        before, memory_before = await cost(scene.there)
        async with AsyncExitStack() as stack:
            await idle_streams(stack, scene.there)
            after, memory_after = await cost(scene.there)
            sys.stdout.write(
                f"{IDLE_STREAMS} idle streams on the node: processor {before:.1%} -> {after:.1%} of a core,"
                f" memory {(memory_after - memory_before) / IDLE_STREAMS / 1024:+.0f} KiB each\n"
            )
            await scene.tell(f"the same beside {IDLE_STREAMS} idle streams", await scene.under_traffic())


async def measure() -> None:
    """Servers, nodes, sessions; then all measurements."""
    async with servers(durable=False) as started:
        with tempfile.TemporaryDirectory(prefix="zap-callbacks-") as notes:
            environment = started.environment(
                ZAP_LOG_LEVEL="warning",
                ZAP_WORKER_PRELOAD="benchmarks.inside_callback:note_callbacks",
                **{**SECRET, FOLDER: notes},
            )
            whatsapp = started.simulator.control
            async with ServiceProcess({**environment, "ZAP_NODE_ID": "here"}) as here:
                await whatsapp.create_phone(FRIEND, "Friend")
                for number in range(SESSIONS):
                    await whatsapp.create_phone(_phone(number), f"Owner {number}")
                    await pair(here, whatsapp, f"s{number}", _phone(number))
                async with ServiceProcess({**environment, "ZAP_NODE_ID": "there"}) as there:
                    await run(Scene(whatsapp, there, started.postgres.url, Path(notes)))


def _phone(number: int) -> str:
    return f"4917100000{number:02}"


if __name__ == "__main__":
    asyncio.run(measure())
