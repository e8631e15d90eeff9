"""Databases for every test: one server of each kind for the session (under xdist: for each worker), one database each.

async def test_something(database_url: str, redis_url: str) -> None: ...
"""

import asyncio
import importlib
import importlib.util
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import hypothesis
import pytest
from redis.asyncio import Redis

from dev import EmbeddedPostgres, EmbeddedValkey
from tests.costs import Costs

# Under nohup, or as a shell's background job, these are ignored, and so they would be by every process that is started
# here; what the tests say of signals is said of a process that has them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes says something about the machine, and is measured in benchmarks/.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

MIGRATIONS = "service.store.migrate"
TEMPLATE = "zap_template"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder of its own in it
# More than the servers of five processes of pytest come to.
SERVERS_TAKE_BYTES = 8 * 2**30


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-costs", action="store_true", help="write tests/costs.txt anew")


def pytest_configure(config: pytest.Config) -> None:
    # xdist would hand out files by their number of tests, and the slowest ones, of few tests each, last.
    config.option.loadscopereorder = False
    config.pluginmanager.register(Costs())


async def migrate(url: str) -> None:
    """Bring the template database to the newest schema: the one seam between these fixtures and the store."""
    if importlib.util.find_spec("service.store") is None or importlib.util.find_spec(MIGRATIONS) is None:
        return
    await importlib.import_module(MIGRATIONS).migrate(url)


def fits_into_memory() -> bool:
    """Whether the servers' files may lie in memory, where the 300 files of a database cost a fraction of the time."""
    if not SHARED_MEMORY.is_dir():
        return False
    found = os.statvfs(SHARED_MEMORY)
    # Where its account cannot reach the installed Postgres, a copy is executed from the folder.
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize >= SERVERS_TAKE_BYTES


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that the account of Postgres can reach: pytest's own tmp_path is closed to all but its user."""
    folder = Path(tempfile.mkdtemp(prefix="zap-tests-", dir=SHARED_MEMORY if fits_into_memory() else None))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
async def postgres_server(server_folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    async with EmbeddedPostgres(server_folder, durable=False, die_with_starter=True) as server:
        yield server


@pytest.fixture(scope="session")
async def valkey_server(server_folder: Path) -> AsyncIterator[EmbeddedValkey]:
    async with EmbeddedValkey(server_folder, die_with_starter=True) as server:
        yield server


@pytest.fixture(scope="session")
async def postgres_admin(postgres_server: EmbeddedPostgres) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection that makes and drops the tests' databases."""
    connection = await asyncpg.connect(postgres_server.url_of("postgres"))
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def database_template(
    postgres_server: EmbeddedPostgres, postgres_admin: "asyncpg.Connection[asyncpg.Record]"
) -> str:
    """The name of a migrated database that each test gets a copy of."""
    await postgres_admin.execute(f"CREATE DATABASE {TEMPLATE}")
    await migrate(postgres_server.url_of(TEMPLATE))
    return TEMPLATE


@asynccontextmanager
async def copied(
    server: EmbeddedPostgres, admin: "asyncpg.Connection[asyncpg.Record]", template: str
) -> AsyncIterator[str]:
    """Yield the URL of a copy of the template, which exists as long as the context."""
    name = f"test_{uuid.uuid4().hex}"
    # Through the WAL, as by default, a copy costs twice as much.
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield server.url_of(name)
    await asyncio.shield(admin.execute(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def database_url(
    postgres_server: EmbeddedPostgres,
    postgres_admin: "asyncpg.Connection[asyncpg.Record]",
    database_template: str,
) -> AsyncIterator[str]:
    """A migrated, empty database of the test's own."""
    async with copied(postgres_server, postgres_admin, database_template) as url:
        yield url


@pytest.fixture(scope="module")
async def module_database_url(
    postgres_server: EmbeddedPostgres,
    postgres_admin: "asyncpg.Connection[asyncpg.Record]",
    database_template: str,
) -> AsyncIterator[str]:
    """A database of the module's own, for tests that share a node."""
    async with copied(postgres_server, postgres_admin, database_template) as url:
        yield url


@pytest.fixture
async def redis_url(valkey_server: EmbeddedValkey) -> AsyncIterator[str]:
    """An empty Redis."""
    yield valkey_server.url
    async with Redis.from_url(valkey_server.url) as redis:
        await redis.flushall()
