"""Any node answers any call: what needs a session's owner is passed on to it."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest

from simulator.control import SimulatorControl
from tests.caller import State
from tests.e2e.pairing_helpers import new_phone, pair
from tests.service_process import ServiceProcess, error_info
from zap.v1 import message_pb2, session_pb2


@dataclass(frozen=True)
class Pair:
    """Two nodes, and a session that the first one owns."""

    owner: ServiceProcess
    other: ServiceProcess
    jid: str
    phone: str


@pytest.fixture
async def nodes(node_environment: dict[str, str], simulator: SimulatorControl) -> AsyncIterator[Pair]:
    secret = {"ZAP_NODE_SECRET": "of-all-nodes-of-this-test"}
    async with ServiceProcess({**node_environment, **secret}) as owner:
        phone = await new_phone(simulator, "Anna")
        jid = await pair(owner, simulator, "anna", phone)
        async with ServiceProcess({**node_environment, **secret}) as other:
            yield Pair(owner, other, jid, phone)


def callers(node: ServiceProcess, method: str) -> list[str]:
    """On whose behalf a node has served the calls of a method, by its log."""
    calls = [line for line in node.log().splitlines() if f"method={method} " in line]
    return [found[1] for line in calls if (found := re.search(r"\] call .*\bcaller=(\S+)", line))]


async def test_a_text_is_sent_by_whichever_node_is_asked(nodes: Pair, simulator: SimulatorControl) -> None:
    friend = await new_phone(simulator, "Friend")
    sent = await nodes.other.send("anna", f"+{friend}", "hello", "one")
    assert sent.state in (message_pb2.Message.STATE_SENT, message_pb2.Message.STATE_DELIVERED)
    assert (await simulator.wait_for_inbox(friend, "hello")).id == sent.message_id
    # Both nodes log on whose behalf. Without a caller, the owner would take it for the holder of the token.
    for node in (nodes.other, nodes.owner):
        assert callers(node, "zap.v1.MessageService/Send") == ["anonymous"]
    # The same request_id is the same message, wherever.
    again = await nodes.owner.send("anna", f"+{friend}", "hello", "one")
    assert again.message_id == sent.message_id
    assert len([message for message in await simulator.inbox(friend) if message.text == "hello"]) == 1
    many = [nodes.other.send("anna", f"+{friend}", f"number {index}", f"number-{index}") for index in range(50)]
    assert {message.state for message in await asyncio.gather(*many)} <= {
        message_pb2.Message.STATE_SENT,
        message_pb2.Message.STATE_DELIVERED,
    }


async def test_a_mistake_is_told_in_the_owner_s_words(nodes: Pair, simulator: SimulatorControl) -> None:
    friend = await new_phone(simulator, "Friend")
    await nodes.other.send("anna", f"+{friend}", "hello", "one")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await nodes.other.send("anna", f"+{friend}", "something else", "one")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(refused.value).reason == "REQUEST_ID_REUSED"


async def test_a_restart_and_a_logout_reach_the_process(nodes: Pair, simulator: SimulatorControl) -> None:
    epoch = (await nodes.other.status("anna")).owner.epoch
    await nodes.other.sessions.Restart(session_pb2.RestartRequest(session_id="anna"))
    await nodes.other.wait_state("anna", State.STATE_CONNECTED, after_epoch=epoch)
    session = await nodes.other.sessions.Logout(session_pb2.LogoutRequest(session_id="anna"))
    assert session.state == State.STATE_LOGGED_OUT
    assert (await simulator.device(nodes.jid)).removed


async def test_a_pairing_is_seen_and_typed_on_any_node(nodes: Pair, simulator: SimulatorControl) -> None:
    phone = await new_phone(simulator, "Berta")
    await nodes.other.create("berta")
    code = await nodes.owner.first_code("berta")
    assert await nodes.other.first_code("berta") == code
    asked = session_pb2.RequestPairingCodeRequest(session_id="berta", phone=phone)
    await nodes.owner.sessions.RequestPairingCode(asked)
    typed = await nodes.other.sessions.RequestPairingCode(asked)
    assert (await simulator.type_code(phone, typed.code)).outcome == "paired"
    for node in (nodes.owner, nodes.other):
        await node.wait_state("berta", State.STATE_CONNECTED)


async def test_a_frozen_owner_keeps_nobody_waiting(nodes: Pair, simulator: SimulatorControl) -> None:
    friend = await new_phone(simulator, "Friend")
    os.kill(nodes.owner.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await nodes.other.send("anna", f"+{friend}", "hello", "one")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began < 15
        # It is the other's before long, and the same request_id is carried out there, once.
        await nodes.other.wait_state("anna", State.STATE_CONNECTED, after_epoch=1, timeout=20)
        sent = await nodes.other.send("anna", f"+{friend}", "hello", "one")
        assert sent.state in (message_pb2.Message.STATE_SENT, message_pb2.Message.STATE_DELIVERED)
    finally:
        os.kill(nodes.owner.pid, signal.SIGCONT)
    await simulator.wait_for_inbox(friend, "hello")
    device = await simulator.device(nodes.jid)
    assert (device.overlaps, device.replaced) == (0, 0)
