"""What trials are made on: nodes on a database of their own, sessions that are all the first node's, and the books."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from simulator.views import DeviceView
from tests.caller import State
from tests.e2e.callers import Told, assert_arrived_once, send_all_the_time
from tests.e2e.cluster import Cluster, cluster
from tests.e2e.sql import Sql
from tests.event_log import assert_gapless, judge_log
from tests.scenarios.report import Outcome
from tests.scenarios.servers import Servers
from tests.service_process import ServiceProcess
from tests.traffic import Written
from zap.v1 import session_pb2

__all__ = ["Books", "Servers", "Stage", "sessions_of", "stage"]

LOOK = 0.1
"""Seconds between two looks at all sessions."""


@dataclass(frozen=True)
class Books:
    """What has been counted up to a moment."""

    at: float
    epochs: Mapping[str, int]
    devices: Mapping[str, DeviceView]
    candidates: int
    """Clients that came to WhatsApp without an account, to be shown a QR code."""


@dataclass(frozen=True)
class Stage:
    """Three nodes and their sessions."""

    there: Cluster
    sql: Sql

    async def books(self, asked: ServiceProcess) -> Books:
        """As they are now."""
        devices = {name: await self.there.simulator.device(jid) for name, jid in self.there.jids.items()}
        candidates = (await self.there.simulator.state()).pairing.candidates
        epochs = {name: session.owner.epoch for name, session in (await sessions_of(asked)).items()}
        return Books(time.time(), epochs, devices, candidates)

    async def back(self, asked: ServiceProcess, before: Books, patience: float) -> dict[str, float]:
        """When each session was seen connected under a later epoch (Unix seconds); infinity if it was not in time."""
        seen: dict[str, float] = {}
        deadline = time.time() + patience
        while len(seen) < len(before.epochs) and time.time() < deadline:
            for name, session in (await sessions_of(asked)).items():
                is_back = session.state == State.STATE_CONNECTED and session.owner.epoch > before.epochs[name]
                if is_back and name not in seen:
                    seen[name] = time.time()
            await asyncio.sleep(LOOK)
        return {name: seen.get(name, float("inf")) for name in before.epochs}

    @asynccontextmanager
    async def traffic(self, rate: float) -> AsyncIterator[list[Written]]:
        """Messages come in for every session; those that were written."""
        async with self.there.traffic(rate) as traffic:
            await asyncio.sleep(1.0)
            yield traffic.written
            await asyncio.sleep(1.0)

    @asynccontextmanager
    async def callers(self, asked: ServiceProcess, told: Told) -> AsyncIterator[None]:
        """Somebody sends by this node."""
        sending = asyncio.create_task(send_all_the_time(self.there, asked, told))
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.wait((sending,))
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error

    async def judge(self, outcome: Outcome, before: Books, after: Books, written: Sequence[Written]) -> None:
        """What must hold after every trial."""
        devices = after.devices.values()
        outcome.must(not any(device.overlaps for device in devices), "a device was connected twice at once")
        outcome.must(not any(device.replaced for device in devices), "a device was thrown out by itself")
        outcome.must(after.candidates == before.candidates, "somebody was shown a QR code")
        judgement = await judge_log(self.sql, written)
        outcome.say(str(judgement))
        outcome.problems += judgement.problems
        await assert_gapless(self.sql)

    async def judge_calls(self, outcome: Outcome, told: Told) -> None:
        """What callers were told was true, and they can live with it."""
        reasons = f" ({', '.join(sorted(told.refused))})" if told.refused else ""
        outcome.say(f"{len(told.sent)} sent, {told.refused.total()} refused for now{reasons}")
        outcome.must(not told.wrong, f"callers were told {dict(told.wrong)}")
        await assert_arrived_once(self.there, told)


async def sessions_of(asked: ServiceProcess) -> dict[str, session_pb2.Session]:
    """All of them, as a node says."""
    answer = await asked.sessions.List(session_pb2.ListRequest(page_size=1000))
    return {session.session_id: session for session in answer.sessions}


@asynccontextmanager
async def stage(servers: Servers, sessions: int, ttl: float) -> AsyncIterator[Stage]:
    """Three nodes; the first one owns all sessions."""
    url = await servers.new_database()
    # What a trial counts is what its fault moves.
    environment = {**servers.environment(url), "ZAP_LEASE_TTL": f"{ttl:g}", "ZAP_REBALANCE": "0"}
    async with cluster(environment, servers.simulator.control, sessions, on_first=True) as there:
        sql = await asyncpg.connect(url)
        try:
            yield Stage(there, sql)
        finally:
            await sql.close()
