"""Servers, a simulated WhatsApp and a node for one long run."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from dev import EmbeddedPostgres, EmbeddedValkey
from simulator.control import SimulatorControl
from simulator.process import PRELOAD, SimulatorProcess
from tests.e2e.sql import Sql
from tests.live_events import LiveEvents
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
    """All of it, for as long as the context lasts; the node's log is printed if it does not end well."""
    with tempfile.TemporaryDirectory(prefix="zap-endurance-") as name:
        folder = Path(name)
        # Root's Postgres runs as nobody, who must be able to pass.
        folder.chmod(0o711)
        temporary = folder / "tmp"
        temporary.mkdir()
        async with (
            EmbeddedPostgres(folder, durable=False, die_with_starter=True) as postgres,
            EmbeddedValkey(folder, die_with_starter=True) as valkey,
            SimulatorProcess() as simulator,
            LiveEvents(valkey.url) as live,
        ):
            environment = {
                "DATABASE_URL": postgres.url,
                "REDIS_URL": valkey.url,
                "TMPDIR": str(temporary),
                "ZAP_CONNECTS_PER_SECOND": "100",
                "ZAP_WORKER_PRELOAD": PRELOAD,
                **simulator.environment(),
                **settings,
            }
            async with ServiceProcess(environment) as node:
                sql = await asyncpg.connect(postgres.url)
                try:
                    yield Stage(node, simulator.control, live, sql, postgres.url, temporary)
                finally:
                    await sql.close()
