"""What a scenario happens on: nodes on a database of their own, their sessions, and all that is judged in the end."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from tests.caller import State
from tests.e2e.callers import Asked, Told, assert_arrived_once, send_all_the_time
from tests.e2e.cluster import Cluster, cluster
from tests.e2e.sql import Sql
from tests.event_log import assert_gapless, judge_log
from tests.judgement import Judgement
from tests.scenarios.background import beside
from tests.scenarios.report import Outcome
from tests.scenarios.servers import Servers
from tests.scenarios.verdict import Counts, count
from tests.service_process import ServiceProcess
from tests.traffic import Written
from zap.v1 import session_pb2

LOOK_S = 0.1
"""Between two looks at all sessions."""
ARRIVE_S = 20.0
"""Without progress, after which a message that is not in the log is lost."""


@dataclass(frozen=True)
class Stage:
    """Nodes and their sessions; `outcome` is what is seen of them."""

    there: Cluster
    sql: Sql
    outcome: Outcome = field(default_factory=Outcome)

    async def counts(self) -> Counts:
        """Count now."""
        return await count(self.sql, self.there.simulator, self.there.jids)

    async def back(self, asked: ServiceProcess, before: Counts, timeout: float) -> dict[str, float]:
        """Return when each session was seen connected under a later epoch (Unix seconds); infinity if not in time."""
        seen: dict[str, float] = {}
        deadline = time.time() + timeout
        while len(seen) < len(before.epochs) and time.time() < deadline:
            for name, session in (await sessions_of(asked)).items():
                is_back = session.state == State.STATE_CONNECTED and session.owner.epoch > before.epochs[name]
                if is_back and name not in seen:
                    seen[name] = time.time()
            await asyncio.sleep(LOOK_S)
        return {name: seen.get(name, float("inf")) for name in before.epochs}

    @asynccontextmanager
    async def traffic(self, rate: float) -> AsyncIterator[list[Written]]:
        """Have people write to every session, from a second before the block until a second after it."""
        async with self.there.traffic(rate) as traffic:
            await asyncio.sleep(1.0)
            yield traffic.written
            await asyncio.sleep(1.0)

    def callers(self, asked: Asked, told: Told) -> AbstractAsyncContextManager[None]:
        """Have a caller send beside the block."""
        return beside(send_all_the_time(self.there, asked, told))

    async def judge(self, before: Counts, after: Counts, written: Sequence[Written]) -> None:
        """Judge what must hold after every scenario."""
        after.judge(self.outcome, before)
        self.outcome.say(str(await self.judge_log(written)))

    async def judge_log(self, written: Sequence[Written]) -> Judgement:
        """Judge whether every message is in the log once and in order, and the sequences have no gap."""
        judgement = await judge_log(self.sql, written, ARRIVE_S)
        self.outcome.problems += judgement.problems
        await self.outcome.check(assert_gapless(self.sql))
        return judgement

    async def judge_calls(self, told: Told) -> None:
        """Judge whether what callers were told was true, and whether they can live with it."""
        reasons = f" ({', '.join(sorted(told.refused))})" if told.refused else ""
        self.outcome.say(f"{len(told.sent)} sent, {told.refused.total()} refused for now{reasons}")
        self.outcome.must(not told.wrong, f"callers were told {dict(told.wrong)}")
        await self.outcome.check(assert_arrived_once(self.there, told))


async def sessions_of(asked: ServiceProcess) -> dict[str, session_pb2.Session]:
    """Return all of them, as a node says."""
    answer = await asked.sessions.List(session_pb2.ListRequest(page_size=1000))
    return {session.session_id: session for session in answer.sessions}


@asynccontextmanager
async def stage(
    servers: Servers, sessions: int, outcome: Outcome, *, on_first: bool = False, **settings: str
) -> AsyncIterator[Stage]:
    """Start three nodes on a database of their own. `on_first`: the first one owns all sessions."""
    url = await servers.new_database()
    environment = servers.environment(url, **settings)
    async with cluster(environment, servers.simulator.control, sessions, on_first=on_first) as there:
        sql = await asyncpg.connect(url)
        try:
            yield Stage(there, sql, outcome)
        finally:
            await sql.close()
