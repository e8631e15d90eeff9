"""Update's new proxy is used from the next connect on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from simulator.certificates import CertificateAuthority
from simulator.control import SimulatorControl
from simulator.preload import URL_VARIABLE
from simulator.process import SimulatorProcess
from tests.caller import State
from tests.e2e.pairing_helpers import new_phone
from tests.e2e.proxies import Manner, Proxy
from tests.eventually import eventually
from tests.service_process import ServiceProcess
from zap.v1 import session_pb2


class Stage:
    """A node, a session that goes through a proxy, and another proxy."""

    def __init__(self, node: ServiceProcess, simulator: SimulatorControl, old: Proxy, new: Proxy) -> None:
        self.node = node
        self.simulator = simulator
        self.old = old
        self.new = new

    async def activate(self) -> None:
        await self.node.sessions.Create(session_pb2.CreateRequest(session_id="anna", proxy_url=self.old.url))
        await self.node.sessions.Activate(session_pb2.ActivateRequest(session_id="anna"))

    async def pair(self) -> session_pb2.Session:
        phone = await new_phone(self.simulator, "Anna")
        assert (await self.simulator.scan(phone, await self.node.first_code("anna"))).outcome == "paired"
        return await self.node.wait_state("anna", State.STATE_CONNECTED)

    async def update(self) -> None:
        changed = session_pb2.Session(session_id="anna", proxy_url=self.new.url)
        await self.node.sessions.Update(session_pb2.UpdateRequest(session=changed))


@pytest.fixture
async def stage(
    node_environment: dict[str, str], simulator_process: SimulatorProcess, simulator: SimulatorControl
) -> AsyncIterator[Stage]:
    through = simulator_process.environment(through_proxy=True) | {URL_VARIABLE: "", "HTTPS_PROXY": ""}
    onward, authority = simulator_process.addresses.proxy, CertificateAuthority()
    async with (
        Proxy(onward, authority) as old,
        Proxy(onward, authority) as new,
        ServiceProcess(node_environment | through) as node,
    ):
        yield Stage(node, simulator, old, new)


async def test_a_connected_session_goes_on_and_takes_it_when_its_connection_ends(stage: Stage) -> None:
    await stage.activate()
    before = await stage.pair()
    await stage.update()
    await asyncio.sleep(0.5)
    now = await stage.node.status("anna")
    assert (now.state, now.owner.epoch) == (State.STATE_CONNECTED, before.owner.epoch)
    await stage.old.drop()
    await stage.node.wait_state("anna", State.STATE_CONNECTED, after_epoch=before.owner.epoch)
    assert stage.new.dials >= 1
    # It has nothing left that goes through the old one.
    await stage.old.behave(Manner.ABSENT)
    await asyncio.sleep(0.5)
    assert (await stage.node.status("anna")).state == State.STATE_CONNECTED


async def test_one_that_tries_in_vain_takes_it_at_once(stage: Stage) -> None:
    await stage.activate()
    before = await stage.pair()
    # What is asked there gets no answer: the library would wait for its own timeout, and try again.
    await stage.old.behave(Manner.SILENT)
    await stage.old.drop()
    await stage.node.wait_state("anna", State.STATE_RECONNECTING)
    await stage.update()
    await stage.node.wait_state("anna", State.STATE_CONNECTED, after_epoch=before.owner.epoch)
    assert stage.new.dials >= 1


async def test_a_pairing_without_a_code_takes_it_at_once_and_one_with_a_code_keeps_that(stage: Stage) -> None:
    await stage.old.behave(Manner.SILENT)
    await stage.activate()
    await eventually(lambda: stage.old.dials, timeout=20)
    await stage.update()
    shown = await stage.node.first_code("anna")
    stage.new, stage.old = stage.old, stage.new
    await stage.update()
    async with aclosing(stage.node.qr_updates("anna")) as updates:
        assert (await anext(updates)).code.text == shown
    await stage.new.behave(Manner.PASS)
    await stage.pair()
