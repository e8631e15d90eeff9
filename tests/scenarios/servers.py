"""The servers that nodes need: a database, a bus and a simulated WhatsApp, in a folder of their own."""

import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from dev import EmbeddedPostgres, EmbeddedValkey
from simulator.process import PRELOAD, SimulatorProcess


@dataclass(frozen=True)
class Servers:
    """A database, a bus and a simulated WhatsApp, for any number of nodes."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    simulator: SimulatorProcess

    async def new_database(self) -> str:
        """Create an empty database; return its URL."""
        admin = await asyncpg.connect(self.postgres.url_of("postgres"))
        try:
            name = f"trial_{time.time_ns()}"
            await admin.execute(f"CREATE DATABASE {name}")
        finally:
            await admin.close()
        return self.postgres.url_of(name)

    def environment(self, database_url: str = "", **settings: str) -> dict[str, str]:
        """Return the environment of a node, on the database that Postgres started with unless another one is named."""
        return {
            "DATABASE_URL": database_url or self.postgres.url,
            "REDIS_URL": self.valkey.url,
            "ZAP_WORKER_PRELOAD": PRELOAD,
            **self.simulator.environment(),
            **settings,
        }


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that the accounts of servers can reach: root's Postgres runs as another account."""
    with tempfile.TemporaryDirectory(prefix="zap-scenario-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@asynccontextmanager
async def servers(*, durable: bool) -> AsyncIterator[Servers]:
    """Start all of them. `durable`: Postgres waits for its disk, as in production."""
    with open_folder() as folder:
        async with (
            EmbeddedPostgres(folder, durable=durable, die_with_starter=True) as postgres,
            EmbeddedValkey(folder, die_with_starter=True) as valkey,
            SimulatorProcess() as simulator,
        ):
            yield Servers(postgres, valkey, simulator)
