"""How fast a session takes in what waited for it: `python -m benchmarks.backlog [messages] [rounds]`.

A node with one session, a simulated WhatsApp, and an embedded Postgres, with fsync on and off in turn. The session is
deactivated, a friend writes so many texts (300 by default), and the session is activated again. The rate is that of the
log: from the first text's append to the last one's. Beside it: processor time for each message, of each part.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from dev import EmbeddedPostgres, EmbeddedValkey
from tests.caller import State
from tests.e2e.people import pair
from tests.service_process import ServiceProcess
from tests.simulator.control import SimulatorControl
from tests.simulator.process import PRELOAD, SimulatorProcess
from zap.v1 import session_pb2

PHONE, FRIEND, SESSION = "491700000001", "491700000002", "s"
PARTS = ("node", "session", "Postgres")


@dataclass(frozen=True)
class Round:
    """What one backlog took."""

    rate: float
    """Messages a second."""
    cpu: dict[str, float]
    """Seconds of processor time, by part."""


class Scene:
    """One node, its session and its database."""

    def __init__(
        self, node: ServiceProcess, whatsapp: SimulatorControl, postgres: EmbeddedPostgres, database: asyncpg.Connection
    ) -> None:
        self._node = node
        self._whatsapp = whatsapp
        self._postgres = postgres
        self._database = database
        self._written = 0

    async def take_in(self, messages: int) -> Round:
        """Let so many messages wait, and have the session take them in."""
        await self._node.sessions.Deactivate(session_pb2.DeactivateRequest(session_id=SESSION))
        await self._node.wait_state(SESSION, State.STATE_DISCONNECTED)
        for _ in range(messages):
            self._written += 1
            await self._whatsapp.write(FRIEND, PHONE, f"text {self._written}")
        before = self._cpu()
        await self._node.sessions.Activate(session_pb2.ActivateRequest(session_id=SESSION))
        async with asyncio.timeout(120):
            while await self._appended() < self._written:  # noqa: ASYNC110 - another process appends
                await asyncio.sleep(0.1)
        after = self._cpu()
        return Round(await self._rate(messages), {part: after[part] - before[part] for part in PARTS})

    async def _appended(self) -> int:
        count: int = await self._database.fetchval("SELECT count(*) FROM zap.event WHERE type = 'MESSAGE_RECEIVED'")
        return count

    async def _rate(self, messages: int) -> float:
        seconds = await self._database.fetchval(
            "SELECT extract(epoch FROM max(appended_at) - min(appended_at))::float8 FROM"
            " (SELECT appended_at FROM zap.event WHERE type = 'MESSAGE_RECEIVED' ORDER BY id DESC LIMIT $1) last",
            messages,
        )
        return (messages - 1) / float(seconds)

    def _cpu(self) -> dict[str, float]:
        node, *rest = self._node.processes()
        server = psutil.Process(self._postgres.pid)
        parts = {"node": [node], "session": rest, "Postgres": [server, *server.children()]}
        return {part: sum(map(_seconds, processes)) for part, processes in parts.items()}


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    # Children that have ended count for their parent.
    return float(times.user + times.system + times.children_user + times.children_system)


@asynccontextmanager
async def scene(base: Path, simulator: SimulatorProcess, phone: str, *, durable: bool) -> AsyncIterator[Scene]:
    """A node with a session that was paired."""
    base.mkdir(mode=0o711)  # noqa: ASYNC240 - once, before anything runs
    async with AsyncExitStack() as stack:
        postgres = EmbeddedPostgres(base, durable=durable, die_with_starter=True)
        await stack.enter_async_context(postgres)
        valkey = await stack.enter_async_context(EmbeddedValkey(base, die_with_starter=True))
        environment = {
            **simulator.environment(),
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "ZAP_LOG_LEVEL": "warning",
            "ZAP_WORKER_PRELOAD": PRELOAD,
        }
        node = await stack.enter_async_context(ServiceProcess(environment))
        await pair(node, simulator.control, SESSION, phone)
        database = await asyncpg.connect(postgres.url)
        stack.push_async_callback(database.close)
        yield Scene(node, simulator.control, postgres, database)


def tell(what: str, messages: int, rounds: list[Round]) -> None:
    """Write a line of medians."""
    rate = statistics.median(one.rate for one in rounds)
    cpu = {part: 1000 * statistics.median(one.cpu[part] for one in rounds) / messages for part in PARTS}
    sys.stdout.write(
        f"{what:10} {rate:6.0f} messages/s ({min(one.rate for one in rounds):.0f} to"
        f" {max(one.rate for one in rounds):.0f}); processor ms a message: "
        + ", ".join(f"{part} {value:.2f}" for part, value in cpu.items())
        + f", all {sum(cpu.values()):.2f}\n"
    )


async def measure(base: Path, messages: int, rounds: int) -> None:
    """Both kinds of Postgres, one after the other."""
    for what, durable in (("fsync on", True), ("fsync off", False)):
        async with SimulatorProcess() as simulator:
            for number in (PHONE, FRIEND):
                await simulator.control.create_phone(number)
            async with scene(base / what.replace(" ", "-"), simulator, PHONE, durable=durable) as one:
                await one.take_in(50)  # the first ones find nothing warm
                tell(what, messages, [await one.take_in(messages) for _ in range(rounds)])


def main() -> None:
    """Measure in a folder of its own."""
    messages, rounds = (int(number) for number in (sys.argv[1:] + ["300", "5"][len(sys.argv) - 1 :])[:2])
    folder = Path(tempfile.mkdtemp(prefix="zap-benchmark-"))
    folder.chmod(0o711)
    try:
        asyncio.run(measure(folder, messages, rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
