"""Start what a benchmark measures: a node with paired sessions, a simulated WhatsApp, embedded Postgres and Valkey."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from dev import EmbeddedPostgres, EmbeddedValkey
from simulator.control import SimulatorControl
from simulator.process import PRELOAD, SimulatorProcess
from tests.e2e.downtime import forget_failures
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
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
        temporary = tempfile.TemporaryDirectory(prefix="zap-benchmark-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        # Root's Postgres runs as nobody, who must be able to pass.
        folder.chmod(0o711)  # noqa: ASYNC240 - once, before anything runs
        postgres = EmbeddedPostgres(folder, durable=durable, die_with_starter=True)
        await stack.enter_async_context(postgres)
        valkey = await stack.enter_async_context(EmbeddedValkey(folder, die_with_starter=True))
        simulator = await stack.enter_async_context(SimulatorProcess())
        servers = {"DATABASE_URL": postgres.url, "REDIS_URL": valkey.url, "ZAP_WORKER_PRELOAD": preload}
        variables = {**servers, **simulator.environment(), **(environment or {})}
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
        sql = await asyncpg.connect(postgres.url)
        stack.push_async_callback(sql.close)
        friend = await new_phone(simulator.control, "Friend")
        yield Deployment(node, simulator.control, postgres, sql, friend, phones, jids)
