"""A node that is asked to stop: gently if it can, within its bound if it cannot, and nothing is left of it."""

import os
import signal
import time
from collections.abc import Sequence

import psutil
import pytest

from simulator.control import SimulatorControl
from tests.caller import State
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.service_process import ServiceProcess
from tests.tcp_proxy import Line, TcpProxy

GRACE = 2.0


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


async def test_a_planned_stop_releases_its_sessions_at_once(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    node = ServiceProcess({**node_environment, "ZAP_LEASE_TTL": "60"})
    async with node:
        jid = await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        processes = node.processes()
        assert len(processes) == 3
        assert await node.stop() == 0
        assert not alive(processes)
        assert not await sql.fetchval("SELECT count(*) FROM zap.lease WHERE incarnation IS NOT NULL")
        # A minute's lease would be left if it had not been released.
        await node.start()
        await node.wait_ready()
        await node.wait_state("anna", State.STATE_CONNECTED, after_epoch=1)
        device = await simulator.device(jid)
        assert (device.overlaps, device.replaced, device.logins) == (0, 0, 2)


@pytest.mark.parametrize("line", [Line.CUT, Line.SILENT])
async def test_a_node_without_its_database_stops_within_its_bound(
    node_environment: dict[str, str], simulator: SimulatorControl, database_url: str, line: Line
) -> None:
    async with TcpProxy(database_url) as proxy:
        environment = {
            **node_environment,
            "DATABASE_URL": proxy.url,
            "ZAP_WHATSAPP_DATABASE_URL": database_url,
            "ZAP_SHUTDOWN_GRACE": f"{GRACE:g}",
        }
        async with ServiceProcess(environment) as node:
            await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
            processes = node.processes()
            await proxy.set(line)
            started = time.monotonic()
            assert await node.stop() == 0
            assert time.monotonic() - started < GRACE + 20
            assert not alive(processes)
            assert "Traceback" not in node.log()


async def test_ctrl_c_in_a_terminal_stops_gently(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    """The terminal sends SIGINT to every process of the group: only the node may act on it."""
    async with ServiceProcess(node_environment) as node:
        await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        processes = node.processes()
        for process in processes:
            os.kill(process.pid, signal.SIGINT)
        assert await node.wait() == 0
        assert not alive(processes)
        assert not await sql.fetchval("SELECT count(*) FROM zap.lease WHERE incarnation IS NOT NULL")
        assert "PROCESS_DIED" not in node.log()
