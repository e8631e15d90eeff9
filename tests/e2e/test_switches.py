"""What the switches of the library do, seen in the tables of the real client and on the wire."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.domain.observations import Connected
from service.workers.pool import Pool, PoolSettings
from simulator.control import SimulatorControl, wait_for
from simulator.process import SimulatorProcess
from tests.contents import text_content
from tests.e2e.held_events import PRELOAD, Hold
from tests.e2e.session_processes import Watched, pair, start
from tests.e2e.sql import Sql
from tests.eventually import eventually
from zap.v1 import event_pb2

FRIEND = "491700000002"
GARBLED = 30


@pytest.fixture
def hold(tmp_path: Path) -> Hold:
    return Hold(tmp_path / "hold")


@pytest.fixture
async def pool(
    simulator: SimulatorControl, simulator_process: SimulatorProcess, database_url: str, hold: Hold
) -> AsyncIterator[Pool]:
    environment = {**os.environ, **simulator_process.environment(), **hold.environment}
    pool = Pool(PoolSettings(database_url, preload=PRELOAD), environment)
    await pool.open()
    await pool.prepare_store()
    await simulator.create_phone(FRIEND, "Friend")
    yield pool
    await pool.close()


async def kill(watched: Watched) -> None:
    os.kill(watched.process.pid, signal.SIGKILL)
    await watched.ended()


async def restored(pool: Pool, watched: Watched, jid: str) -> Watched:
    """Return the session's next process, which does not pair."""
    await kill(watched)
    again = await start(pool, jid=jid, epoch=2)
    await again.expect(Connected)
    return again


async def wait_for_queue(simulator: SimulatorControl, jid: str, length: int) -> None:
    """Wait until this many stanzas are not confirmed."""

    async def has_length() -> bool | None:
        return (await simulator.device(jid)).queue == length or None

    await wait_for(has_length, 10, f"{length} stanzas that are not confirmed")


async def wait_until_cleared(sql: Sql) -> None:
    """Wait until no plaintext is left: the relay clears the last one when no other message comes."""

    async def is_cleared() -> bool | None:
        return not any(await buffered(sql)) or None

    await wait_for(is_cleared, 5, "the buffer to be cleared")


async def buffered(sql: Sql) -> list[bool]:
    """Return for each received message whether its plaintext is still there."""
    rows = await sql.fetch("SELECT plaintext IS NOT NULL AS is_kept FROM whatsmeow_event_buffer")
    return [row["is_kept"] for row in rows]


async def receive(simulator: SimulatorControl, watched: Watched, pn: str, text: str) -> None:
    """Have a friend write, and wait until the message is handed over and confirmed to WhatsApp."""
    message_id = await simulator.write(FRIEND, pn, text)
    message, observed = await watched.message(lambda message: message.text == text)
    assert observed.number is not None
    watched.process.confirm(observed.number)
    await simulator.wait_for_receipt(FRIEND, message_id)
    assert message.text == text


async def test_what_comes_in_is_buffered_until_it_is_acknowledged(
    pool: Pool, simulator: SimulatorControl, sql: Sql
) -> None:
    """DECRYPTION_BUFFER: the row is written with the ratchet, and cleared before the receipt goes out."""
    pn = "491700000401"
    watched, jid = await pair(pool, simulator, pn)
    before = len(await buffered(sql))
    await receive(simulator, watched, pn, "to the one that paired")
    await wait_until_cleared(sql)
    again = await restored(pool, watched, jid)
    await receive(simulator, again, pn, "to the one that was restored")
    await wait_until_cleared(sql)
    assert len(await buffered(sql)) >= before + 2


async def test_a_stop_leaves_no_plaintext(pool: Pool, simulator: SimulatorControl, sql: Sql) -> None:
    pn = "491700000404"
    watched, jid = await pair(pool, simulator, pn)
    await wait_until_cleared(sql)
    for _ in range(5):
        await receive(simulator, watched, pn, "the last one")
        await wait_for_queue(simulator, jid, 0)
        await watched.process.stop(5)
        assert not any(await buffered(sql))
        watched = await start(pool, jid=jid, epoch=2)
        await watched.expect(Connected)


async def test_what_is_sent_is_kept_for_those_who_ask_again(pool: Pool, simulator: SimulatorControl, sql: Sql) -> None:
    """RETRY_STORE."""
    watched, jid = await pair(pool, simulator, "491700000402")
    first = await watched.process.send(f"{FRIEND}@s.whatsapp.net", text_content("by the one that paired"), 10)
    again = await restored(pool, watched, jid)
    second = await again.process.send(f"{FRIEND}@s.whatsapp.net", text_content("by the one that was restored"), 10)
    rows = await sql.fetch("SELECT message_id FROM whatsmeow_retry_buffer WHERE our_jid = $1", jid)
    assert {first.message_id, second.message_id} <= {row["message_id"] for row in rows}


async def test_a_message_that_was_decrypted_and_not_taken_comes_again(
    pool: Pool, simulator: SimulatorControl, sql: Sql, hold: Hold
) -> None:
    """DECRYPTION_BUFFER and UNBUFFERED_EVENTS: no channel takes the second message, and its plaintext is kept."""
    pn = "491700000403"
    watched, jid = await pair(pool, simulator, pn)
    again = await restored(pool, watched, jid)
    await receive(simulator, again, pn, "before")
    await wait_for_queue(simulator, jid, 0)
    rows = len(await buffered(sql))
    hold.begin()
    await simulator.write(FRIEND, pn, "first")
    await eventually(lambda: hold.is_reached, "the first message to be held")
    await simulator.write(FRIEND, pn, "second")

    async def is_decrypted() -> bool | None:
        return len(await buffered(sql)) == rows + 2 or None

    await wait_for(is_decrypted, 10, "the second message to be decrypted")
    await kill(again)
    assert any(await buffered(sql))
    hold.end()
    third = await start(pool, jid=jid, epoch=3)
    message, _ = await third.message(lambda message: message.text == "second")
    assert message.text == "second"
    await wait_for_queue(simulator, jid, 0)
    await wait_until_cleared(sql)


async def test_a_message_that_cannot_be_decrypted_is_acknowledged_after_it_was_asked_for_again(
    pool: Pool, simulator: SimulatorControl
) -> None:
    """RETRY_BEFORE_ACK: off, half of them are acknowledged first."""
    pn = "491700000405"
    watched, jid = await pair(pool, simulator, pn)
    await restored(pool, watched, jid)
    ids = {await simulator.write(FRIEND, pn, f"text {number}", is_garbled=True) for number in range(GARBLED)}
    await wait_for_queue(simulator, jid, 0)
    first = [one for one in await simulator.deliveries(jid) if one.id in ids and one.retry == 0]
    assert [one.acknowledged_by for one in first] == ["retry"] * GARBLED


async def test_a_receipt_that_was_not_taken_comes_again(pool: Pool, simulator: SimulatorControl, hold: Hold) -> None:
    """ACK_AFTER_HANDLER, and UNBUFFERED_EVENTS: no channel takes the second receipt."""
    watched, jid = await pair(pool, simulator, "491700000404")
    again = await restored(pool, watched, jid)
    await wait_for_queue(simulator, jid, 0)
    hold.begin()
    await simulator.send_receipt(jid, FRIEND, "")
    await eventually(lambda: hold.is_reached, "the first receipt to be held")
    await simulator.send_receipt(jid, FRIEND, "read")
    # A round trip, in which the second one has reached the library.
    await again.process.send(f"{FRIEND}@s.whatsapp.net", text_content("meanwhile"), 10)
    await kill(again)
    hold.end()
    third = await start(pool, jid=jid, epoch=3)
    await third.receipt(event_pb2.Receipt.KIND_READ)
    await wait_for_queue(simulator, jid, 0)
