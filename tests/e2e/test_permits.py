"""Without a permit a real session process is dead, whatever it was doing, and nothing of it reaches WhatsApp."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.domain.disconnect_policy import Cause
from service.domain.observations import Connected
from service.workers.pool import Pool, PoolSettings
from simulator.process import SimulatorProcess
from tests.e2e import faults
from tests.e2e.session_processes import Watched, pair, start
from tests.eventually import eventually

FRIEND = "491700002000"
PHONES = [f"49170000200{number}" for number in range(1, 6)]
ROUNDS = int(os.environ.get("ZAP_TEST_ROUNDS", "2"))
"""… with five processes each; 4 make the 20 of 20 that were measured."""


@pytest.fixture
async def pool(simulator_process: SimulatorProcess, database_url: str) -> AsyncIterator[Pool]:
    pool = Pool(PoolSettings(database_url, preload=faults.PRELOAD), {**os.environ, **simulator_process.environment()})
    await pool.open()
    await pool.prepare_store()
    yield pool
    await pool.close()


async def permitted(session: Watched, seconds: float = 1.5) -> None:
    """Permits that follow each other until this is cancelled."""
    while True:
        session.process.permit(time.monotonic() + seconds)
        await asyncio.sleep(seconds / 5)


async def standing_still(pid: int) -> None:
    """Until every thread of it does."""
    await eventually(
        lambda: all("State:\tT" in (task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()),
        timeout=10,
    )


async def past_its_permit(simulator: SimulatorProcess, session: Watched, phone: str, jid: str) -> str:
    """Stop it while it has a permit and is spoken to, continue it when it has none; how it ended."""
    control, process = simulator.control, session.process
    permitting = asyncio.create_task(permitted(session))
    await session.expect(Connected)
    permitting.cancel()
    os.kill(process.pid, signal.SIGSTOP)
    await standing_still(process.pid)
    await control.write(FRIEND, phone, "what it would acknowledge if it went on")
    before = (await control.device(jid)).stanzas
    await asyncio.sleep(max(0.0, process.process._permitted_until + 0.1 - time.monotonic()))
    assert not process.process._exit.exited
    os.kill(process.pid, signal.SIGCONT)
    ended = await session.ended()
    assert ended.cause is Cause.PROCESS_DIED
    assert (await control.device(jid)).stanzas == before
    return ended.detail


async def test_processes_that_were_stopped_past_their_permits_send_nothing_when_they_are_continued(
    pool: Pool, simulator_process: SimulatorProcess
) -> None:
    control = simulator_process.control
    await control.create_phone(FRIEND, "Friend")
    jids = []
    for phone in PHONES:
        session, jid = await pair(pool, control, phone, f"s{phone}")
        jids.append(jid)
        # From now on they know each other's keys: a message would be acknowledged at once.
        await control.write(FRIEND, phone, "hello")
        await control.wait_for_device(jid, lambda device: device.messages.receipted > 0)
        await session.process.stop(10)
    for number in range(ROUNDS):
        starts = (start(pool, f"s{phone}", jid, 2 + number, 1.5) for phone, jid in zip(PHONES, jids, strict=True))
        sessions = await asyncio.gather(*starts)
        stops = zip(sessions, PHONES, jids, strict=True)
        ends = await asyncio.gather(*(past_its_permit(simulator_process, *each) for each in stops))
        assert all("SIGALRM" in words for words in ends), ends


@pytest.mark.parametrize("fault", ["hold-interpreter", "fill-stderr"])
async def test_a_process_that_is_stuck_without_a_permit_is_dead_by_its_end(
    pool: Pool, simulator_process: SimulatorProcess, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    session, jid = await pair(pool, simulator_process.control, f"49170000210{len(fault)}")
    await session.process.stop(10)
    again = await start(pool, jid=jid, epoch=2, permit=1.5)
    permitting = asyncio.create_task(permitted(again))
    await again.expect(Connected)
    faults.provoke(again.process.pid, fault)
    permitting.cancel()
    ended = await again.ended()
    assert ended.cause is Cause.PROCESS_DIED
    assert "SIGALRM" in ended.detail
    assert time.monotonic() - again.process.process._permitted_until < 5
    if fault == "hold-interpreter":
        # A moment before, it wrote down where it was.
        assert "_hold_interpreter" in caplog.text
