"""Servers, a simulated WhatsApp and a node for one long run."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from simulator.control import SimulatorControl
from tests.e2e.sql import Sql
from tests.live_events import LiveEvents
from tests.scenarios.servers import servers
from tests.service_process import ServiceProcess


@dataclass(frozen=True)
class Stage:
    """What a run plays on."""

    node: ServiceProcess
    simulator: SimulatorControl
    live: LiveEvents
    sql: Sql
    database_url: str
    temporary: Path
    """The node's own TMPDIR."""


@asynccontextmanager
async def set_up(**settings: str) -> AsyncIterator[Stage]:
    """Start all of it, for as long as the context lasts; the node's log is printed if it does not end well."""
    with tempfile.TemporaryDirectory(prefix="zap-endurance-") as temporary:
        async with servers(durable=False) as there, LiveEvents(there.valkey.url) as live:
            environment = there.environment(TMPDIR=temporary, ZAP_CONNECTS_PER_SECOND="100", **settings)
            async with ServiceProcess(environment) as node:
                sql = await asyncpg.connect(there.postgres.url)
                try:
                    yield Stage(node, there.simulator.control, live, sql, there.postgres.url, Path(temporary))
                finally:
                    await sql.close()
