"""WhatsApp is told that a session has a message when the event log has it, and not before: on the real client."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

from service.domain.disconnect_policy import Cause
from service.domain.observations import Connected, InboundEvent, Observed
from service.workers.pool import Pool, PoolSettings
from simulator.control import SimulatorControl
from simulator.letters import Letter
from simulator.process import PRELOAD, SimulatorProcess
from tests.contents import text_content
from tests.e2e.session_processes import Watched, pair, start
from tests.eventually import eventually

PHONE, FRIEND = "491700008001", "491700008002"
HELD_S = 0.7
"""Long enough for an acknowledgement that was not held to arrive."""


@pytest.fixture(scope="module")
async def simulator() -> AsyncIterator[SimulatorProcess]:
    async with SimulatorProcess() as running:
        await running.control.create_phone(FRIEND)
        yield running


@pytest.fixture
def control(simulator: SimulatorProcess) -> SimulatorControl:
    return simulator.control


@pytest.fixture
async def pool(simulator: SimulatorProcess, database_url: str) -> AsyncIterator[Pool]:
    pool = Pool(PoolSettings(database_url, preload=PRELOAD), {**os.environ, **simulator.environment()})
    try:
        await pool.open()
        await pool.prepare_store()
        yield pool
    finally:
        await pool.close()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def jid(pool: Pool, control: SimulatorControl) -> str:
    """A device that was paired and rests."""
    first, jid = await pair(pool, control, PHONE)
    await first.process.stop(5)
    return jid


async def in_buffer(store: Any) -> int:
    """How many messages the library's buffer has with their plaintext."""
    count: int = await store.fetchval("SELECT count(plaintext) FROM whatsmeow_event_buffer")
    return count


def hold(watched: Watched) -> list[int]:
    """The numbers of what was reported and has to be confirmed."""
    return [heard.number for heard in watched.heard if heard.number]


async def reported(watched: Watched, count: int) -> Observed:
    await eventually(lambda: len(hold(watched)) == count, f"{count} events")
    return next(heard for heard in reversed(watched.heard) if heard.number)


async def test_a_message_is_acknowledged_when_it_is_committed(
    pool: Pool, control: SimulatorControl, jid: str, store: Any
) -> None:
    watched = await start(pool, jid=jid, epoch=2, commits=False)
    await watched.expect(Connected)
    for text in ("one", "two"):
        await control.write(FRIEND, PHONE, text)
    for number in (1, 2):
        await reported(watched, number)
        await asyncio.sleep(HELD_S)
        assert hold(watched) == list(range(1, number + 1)), "one message is in hand"
        assert await in_buffer(store) == 1
        assert (await control.device(jid)).queue == 3 - number
        watched.process.confirm(number)
        await control.wait_for_device(jid, lambda device, left=2 - number: device.queue == left)  # type: ignore[misc]
    assert [message.text for message in watched.messages] == ["one", "two"]
    # No other message comes, whose decryption would clear it.
    async with asyncio.timeout(5):
        while await in_buffer(store):
            await asyncio.sleep(0.05)


async def test_a_message_is_handed_over_when_its_decryption_is_committed(
    pool: Pool, control: SimulatorControl, jid: str, store: Any
) -> None:
    """The relay answers the library's COMMIT before the server does."""
    watched = await start(pool, jid=jid, epoch=2)
    await watched.expect(Connected)
    await control.write(FRIEND, PHONE, "begins the conversation")
    await watched.message()
    async with store.transaction():
        await store.execute("LOCK TABLE whatsmeow_message_secrets IN EXCLUSIVE MODE")
        await control.write(FRIEND, PHONE, "waits for its secret")
        await asyncio.sleep(HELD_S)
        assert len(watched.messages) == 1
        assert (await control.device(jid)).queue
    await control.wait_for_device(jid, lambda device: not device.queue)
    assert [message.text for message in watched.messages] == ["begins the conversation", "waits for its secret"]


async def kill(watched: Watched) -> None:
    os.kill(watched.process.pid, signal.SIGKILL)


async def stop(watched: Watched) -> None:
    await watched.process.stop(10)


async def leave(watched: Watched) -> None:
    """As a node that dies."""
    watched.process.process.channel.close()


@pytest.mark.parametrize("end", [kill, stop, leave])
async def test_what_is_not_committed_when_its_process_ends_comes_again(
    pool: Pool, control: SimulatorControl, jid: str, end: Callable[[Watched], Awaitable[None]]
) -> None:
    watched = await start(pool, jid=jid, epoch=2, commits=False)
    await watched.expect(Connected)
    await control.write(FRIEND, PHONE, "in hand")
    first = await reported(watched, 1)
    await end(watched)
    ended = await watched.ended()
    assert ended.cause is (Cause.STOPPED if end is stop else Cause.PROCESS_DIED)
    assert (await control.device(jid)).queue
    again = await start(pool, jid=jid, epoch=3)
    second = await reported(again, 1)
    assert second.origin == first.origin != b""
    assert [message.text for message in again.messages] == ["in hand"]
    await control.wait_for_device(jid, lambda device: not device.queue)


async def test_what_is_committed_but_not_acknowledged_is_reported_twice_under_one_origin(
    pool: Pool, control: SimulatorControl, jid: str
) -> None:
    """The kill comes between the commit and the clearing: the log knows the origin."""
    watched = await start(pool, jid=jid, epoch=2, commits=False)
    await watched.expect(Connected)
    await control.write(FRIEND, PHONE, "committed")
    first = await reported(watched, 1)
    await kill(watched)
    again = await start(pool, jid=jid, epoch=3, commits=False)
    second = await reported(again, 1)
    again.process.confirm(1)
    await control.wait_for_device(jid, lambda device: not device.queue)
    await kill(again)
    last = await start(pool, jid=jid, epoch=4)
    await last.expect(Connected)
    await asyncio.sleep(HELD_S)
    assert first.origin == second.origin
    assert hold(last) == [], "it was acknowledged"


async def test_at_most_one_receipt_is_acknowledged_and_not_committed(
    pool: Pool, control: SimulatorControl, jid: str
) -> None:
    watched = await start(pool, jid=jid, epoch=2, commits=False)
    await watched.expect(Connected)
    # Its phone would have a receipt for each message as well.
    await control.switch_off(PHONE)
    for number in range(3):
        await watched.process.send(f"{FRIEND}@s.whatsapp.net", text_content(f"text {number}"), 10)
    await reported(watched, 1)
    await asyncio.sleep(HELD_S)
    held, queue = hold(watched), (await control.device(jid)).queue
    await control.switch_on(PHONE)
    # The one in hand is acknowledged; the next one was not taken.
    assert (held, queue) == ([1], 2)
    await kill(watched)
    again = await start(pool, jid=jid, epoch=3)
    await control.wait_for_device(jid, lambda device: device.queue == 0)
    assert len(hold(again)) >= 2
    assert all(
        heard.observation.kind == "RECEIPT" for heard in again.heard if isinstance(heard.observation, InboundEvent)
    )


async def test_a_stop_lets_the_message_in_hand_be_committed(pool: Pool, control: SimulatorControl, jid: str) -> None:
    watched = await start(pool, jid=jid, epoch=2, commits=False)
    await watched.expect(Connected)
    await control.write(FRIEND, PHONE, "in hand")
    await reported(watched, 1)
    stopping = asyncio.create_task(watched.process.stop(10))
    await control.wait_for_device(jid, lambda device: device.connections == 0)
    assert not stopping.done()
    watched.process.confirm(1)
    await stopping
    assert (await watched.ended()).cause is Cause.STOPPED


async def test_an_event_without_a_clearing_is_held_up_by_nothing(
    pool: Pool, control: SimulatorControl, jid: str
) -> None:
    """A message that cannot be decrypted: its event comes, and comes again when its sender sends it anew."""
    watched = await start(pool, jid=jid, epoch=2)
    await watched.expect(Connected)
    await control.write(FRIEND, PHONE, "a conversation")
    garbled = Letter(Message(conversation="garbled").SerializeToString(), is_garbled=True)
    await control.post(FRIEND, PHONE, garbled)
    await control.write(FRIEND, PHONE, "behind it")
    await watched.message(lambda message: message.text == "behind it")
    kinds = [heard.observation.kind for heard in watched.heard if isinstance(heard.observation, InboundEvent)]
    assert "MESSAGE_UNREADABLE" in kinds
    await watched.message(lambda message: message.text == "garbled")
    await control.wait_for_device(jid, lambda device: not device.queue)
