"""Start what a benchmark measures: a node with paired sessions, a simulated WhatsApp, embedded Postgres and Valkey."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import asyncpg

from dev import EmbeddedPostgres
from simulator.control import SimulatorControl
from simulator.process import PRELOAD
from tests.e2e.downtime import forget_failures
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.scenarios.servers import servers
from tests.service_process import ServiceProcess

PAIRED_AT_ONCE = 4


@dataclass(frozen=True)
class Deployment:
    """Give access to a node, its servers and its sessions, which are shop-0, shop-1, …."""

    node: ServiceProcess
    simulator: SimulatorControl
    postgres: EmbeddedPostgres
    sql: Sql
    friend: str
    """The number of a phone that has no session."""
    phones: dict[str, str]
    """By session."""
    jids: dict[str, str]
    """The address of each session's device."""


@contextlib.asynccontextmanager
async def deployment(
    sessions: int = 1,
    *,
    restored: bool = False,
    durable: bool = False,
    preload: str = PRELOAD,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Deployment]:
    """Start all and pair the sessions; `restored`: restart each, so that its process is not the one that paired."""
    async with contextlib.AsyncExitStack() as stack:
        there = await stack.enter_async_context(servers(durable=durable))
        simulator = there.simulator
        variables = {**there.environment(ZAP_WORKER_PRELOAD=preload), **(environment or {})}
        node = await stack.enter_async_context(ServiceProcess(variables))
        phones = {name: await new_phone(simulator.control, name) for name in (f"shop-{n}" for n in range(sessions))}
        places = asyncio.Semaphore(PAIRED_AT_ONCE)

        async def pair_one(name: str) -> str:
            async with places:
                jid = await pair(node, simulator.control, name, phones[name])
                if restored:
                    await forget_failures(node, name)
                return jid

        jids = dict(zip(phones, await asyncio.gather(*map(pair_one, phones)), strict=True))
        sql = await asyncpg.connect(there.postgres.url)
        stack.push_async_callback(sql.close)
        friend = await new_phone(simulator.control, "Friend")
        yield Deployment(node, simulator.control, there.postgres, sql, friend, phones, jids)
