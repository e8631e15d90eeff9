"""The real neonize in session processes, against the simulated WhatsApp and a real Postgres."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest

from service.domain.disconnects import Cause
from service.domain.observations import (
    CodeShown,
    Connected,
    DeviceSaved,
    Disconnected,
    Ended,
    MessageReceived,
    ReceiptReceived,
)
from service.pool.pool import Pool, PoolSettings, StoreNotPrepared
from service.ports import CallFailed
from tests.e2e.session_processes import Watched, pair, start
from tests.simulator.process import PRELOAD, SimulatorProcess

PHONE, FRIEND = "491700000001", "491700000002"


@pytest.fixture(scope="module")
async def simulator() -> AsyncIterator[SimulatorProcess]:
    async with SimulatorProcess() as running:
        yield running


@pytest.fixture
async def pool(simulator: SimulatorProcess, database_url: str) -> AsyncIterator[Pool]:
    pool = Pool(PoolSettings(database_url, preload=PRELOAD), {**os.environ, **simulator.environment()})
    await pool.open()
    await pool.prepare_store()
    yield pool
    await pool.close()
    await simulator.control.clear_faults()


async def test_a_scan_pairs_and_messages_go_both_ways(pool: Pool, simulator: SimulatorProcess) -> None:
    control = simulator.control
    await control.create_phone(FRIEND, "Friend")
    await control.create_phone(PHONE)
    watched = await start(pool)
    code, _ = await watched.expect(CodeShown)
    assert code.position == 1
    await control.scan(PHONE, code.text)
    saved, _ = await watched.expect(DeviceSaved)
    connected, _ = await watched.expect(Connected)
    assert connected.jid == saved.jid
    assert saved.jid.startswith(PHONE)
    assert connected.lid.endswith("@lid")

    await control.write(FRIEND, PHONE, "hello")
    message, observed = await watched.expect(MessageReceived)
    assert (message.text, message.push_name, message.from_me, message.is_group) == ("hello", "Friend", False, False)
    assert observed.number == 1
    watched.process.confirm(observed.number)

    sent = await watched.process.send_text(f"{FRIEND}@s.whatsapp.net", "see https://example.com", 10)
    arrived = await control.wait_for_inbox(FRIEND, "see https://example.com")
    assert arrived.id == sent.message_id
    receipt, _ = await watched.expect(ReceiptReceived)
    assert (receipt.message_ids, receipt.kind) == ((sent.message_id,), "DELIVERED")
    await watched.process.stop(5)
    assert await watched.ended() == Ended(Cause.STOPPED, "asked to stop")
