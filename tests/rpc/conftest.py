"""Two servers of zap.v1: one with a core in memory, and the whole service with a database of its own."""

import uuid
from collections.abc import AsyncIterator, Iterator

import asyncpg
import grpc
import pytest

from dev import EmbeddedPostgres, EmbeddedValkey
from tests.fakes.serving import FakeService
from tests.service_process import ServiceProcess


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeService]:
    with FakeService() as service:
        yield service


@pytest.fixture(scope="module")
def fake_channel(fake: FakeService) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(fake.address) as channel:
        yield channel


@pytest.fixture(scope="module")
async def whole_service(
    postgres_server: EmbeddedPostgres,
    postgres_admin: "asyncpg.Connection[asyncpg.Record]",
    database_template: str,
    valkey_server: EmbeddedValkey,
) -> AsyncIterator[ServiceProcess]:
    name = f"test_{uuid.uuid4().hex}"
    await postgres_admin.execute(f"CREATE DATABASE {name} TEMPLATE {database_template}")
    urls = {"DATABASE_URL": postgres_server.url_of(name), "REDIS_URL": valkey_server.url}
    async with ServiceProcess(urls) as service:
        yield service
        assert "Traceback" not in service.log()
    await postgres_admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
