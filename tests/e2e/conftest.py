"""A simulated WhatsApp for the session, and what aims a node at it and at the test's own database."""

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from dev import EmbeddedValkey
from simulator.control import SimulatorControl
from simulator.process import PRELOAD, SimulatorProcess
from tests.live_events import LiveEvents
from tests.node_template import NodeTemplate
from tests.service_process import ServiceProcess

LEASE_TTL = 3.0
"""Seconds. Short, so that a killed node's sessions are free soon."""


@pytest.fixture(scope="session")
def node_template() -> Iterator[NodeTemplate]:
    with NodeTemplate() as template:
        yield template


@pytest.fixture(scope="module", autouse=True)
def forked_nodes(request: pytest.FixtureRequest, node_template: NodeTemplate) -> Iterator[None]:
    """Fork the nodes of a module, unless it is about what an executed one does."""
    ServiceProcess.template = None if getattr(request.module, "EXECUTES_NODES", False) else node_template
    yield
    ServiceProcess.template = None


@pytest.fixture(scope="session")
async def simulator_process() -> AsyncIterator[SimulatorProcess]:
    async with SimulatorProcess() as process:
        yield process


@pytest.fixture
async def simulator(simulator_process: SimulatorProcess) -> AsyncIterator[SimulatorControl]:
    """The simulated WhatsApp, with no fault left over from another test."""
    yield simulator_process.control
    await simulator_process.control.clear_faults()


def settings(database_url: str, redis_url: str, simulator_process: SimulatorProcess) -> dict[str, str]:
    """Settings of a node on these servers, whose session processes reach the simulator.

    Sessions stay where a test has put them, unless it says otherwise.
    """
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "ZAP_LEASE_TTL": f"{LEASE_TTL:g}",
        "ZAP_REBALANCE": "0",
        "ZAP_WORKER_PRELOAD": PRELOAD,
        **simulator_process.environment(),
    }


@pytest.fixture
def node_environment(database_url: str, redis_url: str, simulator_process: SimulatorProcess) -> dict[str, str]:
    """Settings of a node on the test's own database."""
    return settings(database_url, redis_url, simulator_process)


@pytest.fixture(scope="module")
async def shared_node(
    module_database_url: str, valkey_server: EmbeddedValkey, simulator_process: SimulatorProcess
) -> AsyncIterator[ServiceProcess]:
    """A node for tests of one module that do nothing to it; each has sessions of its own."""
    async with ServiceProcess(settings(module_database_url, valkey_server.url, simulator_process)) as node:
        yield node
        assert "Traceback" not in node.log()


@pytest.fixture
async def live(redis_url: str) -> AsyncIterator[LiveEvents]:
    """What is published on Redis during the test."""
    async with LiveEvents(redis_url) as events:
        yield events


@pytest.fixture
async def sql(database_url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection to the node's database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
