"""The main job: scan once, lose everything but the database, and be connected again without a QR code."""

import time

import asyncpg
import pytest

from service.domain.lease import LeaseTimes
from simulator.control import SimulatorControl
from tests.caller import State
from tests.e2e.conftest import LEASE_TTL
from tests.e2e.pairing_helpers import new_phone, pair
from tests.live_events import LiveEvents
from tests.service_process import ServiceProcess
from zap.v1 import message_pb2, session_pb2

BACK = 5.0
"""Seconds from ready to CONNECTED, beyond what is left of the dead node's lease."""


@pytest.mark.parametrize("count", [1, 2])
async def test_scan_once_restart_for_ever(
    node_environment: dict[str, str],
    simulator: SimulatorControl,
    live: LiveEvents,
    sql: "asyncpg.Connection[asyncpg.Record]",
    count: int,
) -> None:
    names = [f"shop-{number}" for number in range(count)]
    phones = [await new_phone(simulator, name) for name in names]
    friend = await new_phone(simulator, "Friend")
    async with ServiceProcess(node_environment) as node:
        jids = [await pair(node, simulator, name, phone) for name, phone in zip(names, phones, strict=True)]
        for name, phone in zip(names, phones, strict=True):
            await _talk(node, simulator, live, name, phone, friend, "before")
        rows = await sql.fetch("SELECT session_id, status, creds_size, last_connected FROM whatsapp_session")
        assert {row["session_id"]: row["status"] for row in rows} == dict.fromkeys(names, "CONNECTED")
        assert all(row["creds_size"] > 100 and row["last_connected"] for row in rows)

        await node.kill_all()
        for name, phone in zip(names, phones, strict=True):
            await simulator.write(friend, phone, f"while you were away, {name}")
        live.events.clear()
        lease_left = LeaseTimes(LEASE_TTL).ttl
        await node.start()
        await node.wait_ready()
        ready = time.monotonic()
        for name in names:
            await node.wait_state(name, State.STATE_CONNECTED, timeout=BACK + lease_left, after_epoch=1)
        assert time.monotonic() - ready <= BACK + lease_left

        for name, phone, jid in zip(names, phones, jids, strict=True):
            await live.wait_for(name, "messageReceived", text=f"while you were away, {name}")
            await _talk(node, simulator, live, name, phone, friend, "after")
            # Not one code was shown, and whoever asks for one is told that it is paired.
            assert not [event for event in live.of(name, "pairing") if "qrPosition" in event["pairing"]]
            assert (await node.outcome(name)).outcome == session_pb2.PAIRING_OUTCOME_PAIRED
            device = await simulator.device(jid)
            assert (device.overlaps, device.replaced) == (0, 0)
        sequences = await sql.fetch("SELECT session_id, array_agg(sequence ORDER BY id) AS s FROM zap.event GROUP BY 1")
        assert all(list(row["s"]) == list(range(1, len(row["s"]) + 1)) for row in sequences)


async def _talk(
    node: ServiceProcess,
    simulator: SimulatorControl,
    live: LiveEvents,
    session_id: str,
    phone: str,
    friend: str,
    when: str,
) -> None:
    """A text each way; and the same request_id sends nothing again."""
    greeting = f"hello {session_id} {when}"
    await simulator.write(friend, phone, greeting)
    event = await live.wait_for(session_id, "messageReceived", text=greeting)
    assert event["messageReceived"]["pushName"] == "Friend"

    answer = f"this is {session_id}, {when}"
    sent = await node.send(session_id, friend, answer, f"{session_id}-{when}")
    assert sent.state in {message_pb2.Message.STATE_SENT, message_pb2.Message.STATE_DELIVERED}
    arrived = await simulator.wait_for_inbox(friend, answer)
    assert (arrived.id, arrived.times) == (sent.message_id, 1)
    for earlier in {"before", when}:
        again = await node.send(session_id, friend, f"this is {session_id}, {earlier}", f"{session_id}-{earlier}")
        assert again.message_id
    assert [message.times for message in await simulator.inbox(friend) if message.text == answer] == [1]
