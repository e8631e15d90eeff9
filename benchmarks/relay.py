"""What the database relay costs: `python -m benchmarks.relay`.

The same session with the relay and without it, in turn, in one run on one machine: an inbound message (from a phone's
writing to the node's having it), a query of whatsmeow's (one round trip to Postgres), the memory of the process. A
simulated WhatsApp answers; embedded Postgres, fsync off.
"""

import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.inside_session import FOLDER
from dev import EmbeddedPostgres
from service.domain.observations import CodeShown, Connected, InboundEvent, Observation
from service.ports.processes import StartOrder
from service.workers.hosted_session import HostedSession
from service.workers.pool import Pool, PoolSettings
from simulator.control import SimulatorControl
from simulator.process import PRELOAD, SimulatorProcess
from tests.scenarios.servers import open_folder
from zap.v1 import event_pb2

PHONE, FRIEND = "491700000001", "491700000002"
ROUNDS, WARM_UP, MESSAGES = 5, 30, 300
WAYS = {"with the relay": "with_relay", "without it": "without_relay"}
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figures:
    """Of one process."""

    message: float
    """Seconds, median."""
    message_cpu: float
    """Seconds of the process's processors."""
    query: float
    query_cpu: float
    memory: float
    """MiB that it has written and shares with no other process, connected and idle."""


class Listener:
    """A process's observations, by the texts that came in."""

    def __init__(self, process: HostedSession) -> None:
        self.process = process
        self.code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.jid: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._texts: dict[str, asyncio.Event] = {}
        self._reading = asyncio.create_task(self._read())

    async def text(self, text: str) -> None:
        """Wait until it has come in."""
        async with asyncio.timeout(20):
            await self._texts.setdefault(text, asyncio.Event()).wait()

    async def _read(self) -> None:
        async for batch in self.process.observations():
            for observed in batch:
                self._hear(observed.observation)
            self.process.confirm(max(observed.number for observed in batch))

    def _hear(self, observation: Observation) -> None:
        match observation:
            case CodeShown(text=text) if not self.code.done():
                self.code.set_result(text)
            case Connected(jid=jid) if not self.jid.done():
                self.jid.set_result(jid)
            case InboundEvent(kind="MESSAGE_RECEIVED", encoded=encoded):
                text = event_pb2.Event.FromString(encoded).message_received.text
                self._texts.setdefault(text, asyncio.Event()).set()


@asynccontextmanager
async def running(
    url: str, simulator: SimulatorProcess, preload: str, folder: Path, jid: str = "", epoch: int = 1
) -> AsyncIterator[Listener]:
    """A session process from a pool of its own."""
    environment = {**os.environ, **simulator.environment(), FOLDER: str(folder)}
    pool = Pool(PoolSettings(url, preload=preload), environment)
    await pool.open()
    if not jid:
        await pool.prepare_store()
    listener = Listener(await pool.start(StartOrder("one", epoch, jid, "", time.monotonic() + 600)))
    yield listener
    await listener.process.stop(5)
    await pool.close()


def processor_seconds(pid: int) -> float:
    """Of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def private_memory(pid: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024


async def inbound(control: SimulatorControl, listener: Listener, name: str) -> tuple[float, float]:
    """Messages one after another: the median latency, and the processor time of each."""
    taken = []
    began = 0.0
    for number in range(WARM_UP + MESSAGES):
        if number == WARM_UP:
            began = processor_seconds(listener.process.pid)
        text = f"{name} {number}"
        started = time.perf_counter()
        writing = asyncio.create_task(control.write(FRIEND, PHONE, text))
        await listener.text(text)
        if number >= WARM_UP:
            taken.append(time.perf_counter() - started)
        await writing
    used = processor_seconds(listener.process.pid) - began
    return statistics.median(taken), used / MESSAGES


def result_in(folder: Path) -> str:
    """What the process wrote down, once it has."""
    while not (folder / "result").exists():
        time.sleep(0.05)
    return (folder / "result").read_text(encoding="utf-8")


async def measure(url: str, simulator: SimulatorProcess, way: str, jid: str, epoch: int) -> Figures:
    """One process, from its start to its end."""
    folder = Path(tempfile.mkdtemp(prefix="zap-benchmark-"))
    os.mkfifo(folder / "go")
    async with running(url, simulator, f"benchmarks.inside_session:{way}", folder, jid, epoch) as listener:
        await listener.jid
        await asyncio.sleep(2.0)
        memory = private_memory(listener.process.pid)
        message, message_cpu = await inbound(simulator.control, listener, f"{way} {epoch}")
        await asyncio.to_thread((folder / "go").write_bytes, b"")
        queries = json.loads(await asyncio.to_thread(result_in, folder))
    shutil.rmtree(folder)
    return Figures(message, message_cpu, queries["median"], queries["cpu"], memory)


def tell(figures: dict[str, list[Figures]]) -> None:
    """A line for each kind of figure."""
    rows = (
        ("an inbound message, ms", "message", 1000),
        ("its processor time, ms", "message_cpu", 1000),
        ("a query and its answer, ms", "query", 1000),
        ("its processor time, ms", "query_cpu", 1000),
        ("memory of the process, MiB", "memory", 1),
    )
    for title, field, unit in rows:
        ours, bare = ([getattr(one, field) * unit for one in figures[way]] for way in WAYS)
        ratio = statistics.median(ours) / statistics.median(bare)
        difference = statistics.median(ours) - statistics.median(bare)
        sys.stdout.write(
            f"{title:30} with {statistics.median(ours):7.3f}   without {statistics.median(bare):7.3f}"
            f"   {difference:+7.3f}   ratio {ratio:.2f}\n"
        )


async def run(base: Path) -> None:
    """The whole benchmark."""
    figures: dict[str, list[Figures]] = {way: [] for way in WAYS}
    async with (
        EmbeddedPostgres(base, durable=False, die_with_starter=True) as postgres,
        SimulatorProcess() as simulator,
    ):
        for phone in (PHONE, FRIEND):
            await simulator.control.create_phone(phone)
        async with running(postgres.url, simulator, PRELOAD, base) as pairing:
            await simulator.control.scan(PHONE, await pairing.code)
            jid = await pairing.jid
        epoch = 1
        for _ in range(ROUNDS):
            for way, preload in WAYS.items():
                epoch += 1
                figures[way].append(await measure(postgres.url, simulator, preload, jid, epoch))
    tell(figures)


if __name__ == "__main__":
    with open_folder() as folder:
        asyncio.run(run(folder))
