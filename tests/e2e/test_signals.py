"""What each signal does to a node that serves."""

import os
import signal

import pytest

from simulator.control import SimulatorControl
from tests.e2e.pairing_helpers import new_phone, pair
from tests.service_process import ServiceProcess

EXECUTES_NODES = True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_that_asks_for_the_end_ends_it_in_order(
    node_environment: dict[str, str], simulator: SimulatorControl, number: signal.Signals
) -> None:
    """SIGHUP is what a node gets that runs in a terminal when the terminal is closed."""
    async with ServiceProcess(node_environment) as node:
        jid = await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        children = node.processes()[1:]
        os.kill(node.pid, number)
        assert await node.wait() == 0
        assert "The node stops." in node.log()
        assert not [child for child in children if child.is_running()]
        assert (await simulator.device(jid)).connections == 0
