"""Phones for tests, and the way from nothing to a connected session."""

import itertools

from simulator.control import SimulatorControl
from tests.caller import State
from tests.service_process import ServiceProcess

_numbers = itertools.count(4915110000001)


async def new_phone(simulator: SimulatorControl, name: str) -> str:
    """A phone number that no other test of this run uses."""
    number = str(next(_numbers))
    await simulator.create_phone(number, name)
    return number


async def pair(node: ServiceProcess, simulator: SimulatorControl, session_id: str, phone: str) -> str:
    """From nothing to CONNECTED; the device's address."""
    await node.create(session_id)
    link = await simulator.scan(phone, await node.first_code(session_id))
    if link.outcome != "paired" or link.jid is None:
        raise AssertionError(f"the scan ended as {link}")
    await node.wait_state(session_id, State.STATE_CONNECTED)
    return link.jid
