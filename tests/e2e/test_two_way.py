"""Both sides of a conversation write at the same time: on the real client."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator

import pytest

from service.domain.observations import Connected
from service.workers.pool import Pool, PoolSettings
from simulator.process import PRELOAD, SimulatorProcess
from tests.contents import text_content
from tests.e2e.session_processes import pair, start
from tests.eventually import eventually

PHONE, FRIEND = "491700009001", "491700009002"
SENDERS, SENDS = 4, 15


@pytest.fixture
async def simulator() -> AsyncIterator[SimulatorProcess]:
    async with SimulatorProcess() as running:
        await running.control.create_phone(FRIEND)
        yield running


@pytest.fixture
async def pool(simulator: SimulatorProcess, database_url: str) -> AsyncIterator[Pool]:
    pool = Pool(PoolSettings(database_url, preload=PRELOAD), {**os.environ, **simulator.environment()})
    try:
        await pool.open()
        await pool.prepare_store()
        yield pool
    finally:
        await pool.close()


async def test_no_message_of_either_side_is_unreadable(pool: Pool, simulator: SimulatorProcess) -> None:
    control = simulator.control
    paired, jid = await pair(pool, control, PHONE)
    await paired.process.send(f"{FRIEND}@s.whatsapp.net", text_content("hello"), 10)
    await paired.process.stop(5)
    watched = await start(pool, jid=jid, epoch=2)
    await watched.expect(Connected)
    written, is_over = [], asyncio.Event()

    async def write() -> None:
        for number in itertools.count():
            if is_over.is_set():
                return
            written.append(await control.write(FRIEND, PHONE, f"in {number}"))
            await asyncio.sleep(0.01)

    async def send(sender: int) -> list[str]:
        sent = [
            await watched.process.send(f"{FRIEND}@s.whatsapp.net", text_content(f"out {sender}"), 10)
            for _ in range(SENDS)
        ]
        return [one.message_id for one in sent]

    writing = asyncio.create_task(write())
    sent = await asyncio.gather(*map(send, range(SENDERS)))
    is_over.set()
    await writing
    await eventually(lambda: len(watched.messages) >= len(written), "every message of the friend's")
    assert [message.message_id for message in watched.messages] == written, "each once, in order"
    assert (await control.device(jid)).messages.retry_receipted == 0
    inbox = {one.id: one for one in await control.inbox(FRIEND)}
    assert all(inbox[message_id].retries == 0 for ids in sent for message_id in ids)
    assert await control.unreadable(FRIEND) == []
