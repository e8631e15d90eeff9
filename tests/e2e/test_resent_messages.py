"""A message that its recipient could not read is sent again, whichever process has sent it, and however long ago.

The recipient's phone is switched off while the message is sent. When it is on again it has lost its session, cannot
read the message, and asks for it with a retry receipt. whatsmeow answers for the process's last 256 messages from
memory, and for all others from its retry store.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from service.domain.observations import Connected
from service.workers.pool import Pool, PoolSettings
from simulator.control import SimulatorControl
from simulator.process import PRELOAD, SimulatorProcess
from tests.contents import text_content
from tests.e2e.pairing_helpers import new_phone
from tests.e2e.session_processes import Watched, pair, start

SEND_SECONDS = 20.0
KEPT_IN_MEMORY = 256
"""Messages that whatsmeow can send again without its store."""

TEXT = "can you read this?"


@dataclass
class Session:
    """A session process of an account, and the friend whom it writes to."""

    watched: Watched
    jid: str
    friend: str
    chat: str
    """Where the message goes, as the service names it."""

    async def send(self, to: str, text: str) -> str:
        """Send a text; the message's id."""
        return (await self.watched.process.send(to, text_content(text), SEND_SECONDS)).message_id

    async def resume(self, pool: Pool) -> None:
        """Start the session's next process."""
        self.watched = await start(pool, jid=self.jid, epoch=2)
        await self.watched.expect(Connected)


Replace = Callable[[Session, Pool, Pool], Awaitable[None]]


@asynccontextmanager
async def node(database_url: str, simulator: SimulatorProcess) -> AsyncIterator[Pool]:
    pool = Pool(PoolSettings(database_url, preload=PRELOAD), {**os.environ, **simulator.environment()})
    await pool.open()
    await pool.prepare_store()
    yield pool
    await pool.close()


@pytest.fixture
async def pool(simulator_process: SimulatorProcess, database_url: str) -> AsyncIterator[Pool]:
    async with node(database_url, simulator_process) as pool:
        yield pool


@pytest.fixture
async def other_node(simulator_process: SimulatorProcess, database_url: str) -> AsyncIterator[Pool]:
    async with node(database_url, simulator_process) as pool:
        yield pool


@pytest.fixture(params=["number", "lid", "group"])
async def session(request: pytest.FixtureRequest, pool: Pool, simulator: SimulatorControl) -> Session:
    """A session that has written to its friend before, in the chat that is tried."""
    account, friend = await new_phone(simulator, "Anna"), await new_phone(simulator, "Friend")
    watched, jid = await pair(pool, simulator, account)
    chats = {
        "number": f"{friend}@s.whatsapp.net",
        "lid": (await simulator.phone(friend)).lid,
        "group": (await simulator.create_group(account, "Garden", [friend])).jid,
    }
    session = Session(watched, jid, friend, chats[request.param])
    await session.send(session.chat, "introduction")
    await simulator.wait_for_inbox(friend, "introduction")
    return session


async def restart(session: Session, pool: Pool, _other: Pool) -> None:
    await session.watched.process.stop(5)
    await session.watched.ended()
    await session.resume(pool)


async def kill(session: Session, pool: Pool, _other: Pool) -> None:
    os.kill(session.watched.process.pid, signal.SIGKILL)
    await session.watched.ended()
    await session.resume(pool)


async def hand_over(session: Session, _pool: Pool, other: Pool) -> None:
    await session.watched.process.stop(5)
    await session.watched.ended()
    await session.resume(other)


async def read_by_friend(session: Session, simulator: SimulatorControl, message_id: str) -> None:
    """The friend's phone is switched on, cannot read what waited for it, and can when it has asked again."""
    await simulator.make_unreadable(session.friend, session.jid)
    await simulator.switch_on(session.friend)
    arrived = await simulator.wait_for_inbox(session.friend, TEXT)
    assert (arrived.id, arrived.retries, arrived.times) == (message_id, 1, 1)
    assert await simulator.unreadable(session.friend) == []


async def test_a_message_is_sent_again_by_the_process_that_has_sent_it(
    session: Session, simulator: SimulatorControl
) -> None:
    """From memory: this one needs no retry store."""
    await simulator.switch_off(session.friend)
    message_id = await session.send(session.chat, TEXT)
    await read_by_friend(session, simulator, message_id)


@pytest.mark.parametrize("replace", [restart, kill, hand_over])
async def test_a_message_is_sent_again_by_the_session_s_next_process(
    session: Session, simulator: SimulatorControl, pool: Pool, other_node: Pool, replace: Replace
) -> None:
    await simulator.switch_off(session.friend)
    message_id = await session.send(session.chat, TEXT)
    await replace(session, pool, other_node)
    await read_by_friend(session, simulator, message_id)


async def test_a_message_is_sent_again_after_more_sends_than_are_kept_in_memory(
    session: Session, simulator: SimulatorControl
) -> None:
    other = await new_phone(simulator, "Other")
    await simulator.switch_off(session.friend)
    message_id = await session.send(session.chat, TEXT)
    for number in range(KEPT_IN_MEMORY + 44):
        await session.send(f"{other}@s.whatsapp.net", f"text {number}")
    await read_by_friend(session, simulator, message_id)
