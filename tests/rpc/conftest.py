"""Two servers of zap.v1: one with a core in memory, and the whole service with a database of its own."""

from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from dev import EmbeddedValkey
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
async def whole_service(module_database_url: str, valkey_server: EmbeddedValkey) -> AsyncIterator[ServiceProcess]:
    async with ServiceProcess({"DATABASE_URL": module_database_url, "REDIS_URL": valkey_server.url}) as service:
        yield service
        assert "Traceback" not in service.log()
