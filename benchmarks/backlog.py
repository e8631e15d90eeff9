"""How fast a session takes in what waited for it: `python -m benchmarks.backlog [messages] [rounds]`.

A node with one session, a simulated WhatsApp, and an embedded Postgres, with fsync on and off in turn. The session is
deactivated, a friend writes so many texts (300 by default), and the session is activated again. The rate is that of the
log: from the first text's append to the last one's. Beside it: processor time for each message, of each part.
"""

import asyncio
import datetime
import statistics
import sys
from dataclasses import dataclass

import psutil

from benchmarks.stage import Deployment, deployment
from tests.caller import State
from zap.v1 import session_pb2

SESSION = "shop-0"
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

    def __init__(self, there: Deployment) -> None:
        self._there = there
        self._written = 0

    async def take_in(self, messages: int) -> Round:
        """Let so many messages wait, and have the session take them in."""
        await self._there.node.sessions.Deactivate(session_pb2.DeactivateRequest(session_id=SESSION))
        await self._there.node.wait_state(SESSION, State.STATE_DISCONNECTED)
        for _ in range(messages):
            self._written += 1
            await self._there.simulator.write(self._there.friend, self._there.phones[SESSION], f"text {self._written}")
        # A session that is being stopped may still take in the first of them.
        began = await self._there.sql.fetchval("SELECT clock_timestamp()")
        before = self._cpu()
        await self._there.node.sessions.Activate(session_pb2.ActivateRequest(session_id=SESSION))
        async with asyncio.timeout(120):
            while await self._appended() < self._written:  # noqa: ASYNC110 - another process appends
                await asyncio.sleep(0.1)
        after = self._cpu()
        return Round(await self._rate(began), {part: after[part] - before[part] for part in PARTS})

    async def _appended(self) -> int:
        count: int = await self._there.sql.fetchval("SELECT count(*) FROM zap.event WHERE type = 'MESSAGE_RECEIVED'")
        return count

    async def _rate(self, began: datetime.datetime) -> float:
        rate: float = await self._there.sql.fetchval(
            "SELECT (count(*) - 1) / extract(epoch FROM max(appended_at) - min(appended_at))::float8 FROM zap.event"
            " WHERE type = 'MESSAGE_RECEIVED' AND appended_at > $1",
            began,
        )
        return rate

    def _cpu(self) -> dict[str, float]:
        node, *rest = self._there.node.processes()
        server = psutil.Process(self._there.postgres.pid)
        parts = {"node": [node], "session": rest, "Postgres": [server, *server.children()]}
        return {part: sum(map(_seconds, processes)) for part, processes in parts.items()}


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    # Children that have ended count for their parent.
    return float(times.user + times.system + times.children_user + times.children_system)


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


async def measure(messages: int, rounds: int) -> None:
    """Measure with both kinds of Postgres, one after the other."""
    for what, durable in (("fsync on", True), ("fsync off", False)):
        async with deployment(durable=durable, environment={"ZAP_LOG_LEVEL": "warning"}) as there:
            one = Scene(there)
            await one.take_in(50)  # the first ones find nothing warm
            tell(what, messages, [await one.take_in(messages) for _ in range(rounds)])


if __name__ == "__main__":
    asyncio.run(measure(*(int(number) for number in (sys.argv[1:] + ["300", "5"][len(sys.argv) - 1 :])[:2])))
