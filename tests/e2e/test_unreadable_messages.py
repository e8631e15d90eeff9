"""A message that its recipient could not read is sent again by any node; if not, the Message and an event say so.

The friend's phone is off while the message is sent, has lost its keys when it is on again, and asks for it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import psutil
import pytest
from google.protobuf.json_format import ParseDict

from simulator.control import SimulatorControl
from tests.caller import State
from tests.e2e.cluster import Cluster, cluster
from tests.e2e.pairing_helpers import new_phone
from tests.e2e.sql import Sql
from tests.live_events import LiveEvents
from tests.service_process import ServiceProcess
from zap.v1 import event_pb2, message_pb2, session_pb2

TEXT = "can you read this?"
SESSION, REQUEST = "s0", "r1"
KEPT_IN_MEMORY = 256
"""Messages that the library can send again without its store."""


@dataclass
class Stage:
    """A paired session, on one of two nodes, and what is heard of it."""

    there: Cluster
    asked: ServiceProcess
    simulator: SimulatorControl
    live: LiveEvents

    @property
    def friend(self) -> str:
        return self.there.friend

    @property
    def jid(self) -> str:
        return self.there.jids[SESSION]

    async def send_to_a_phone_that_is_off(self, to: str) -> str:
        """Send the message, after one that has begun the conversation; return its id."""
        await self.asked.send(SESSION, to, "introduction", "introduction")
        await self.simulator.wait_for_inbox(self.friend, "introduction")
        await self.simulator.switch_off(self.friend)
        sent = await self.asked.send(SESSION, to, TEXT, REQUEST)
        assert sent.message_id
        return sent.message_id

    async def switch_on(self) -> None:
        await self.simulator.make_unreadable(self.friend, self.jid)
        await self.simulator.switch_on(self.friend)

    async def is_connected_anew(self, epoch: int) -> None:
        await self.asked.wait_state(SESSION, State.STATE_CONNECTED, after_epoch=epoch, timeout=30)

    async def epoch(self) -> int:
        return (await self.asked.status(SESSION)).owner.epoch

    async def message(self) -> message_pb2.Message:
        return await self.asked.messages.Get(message_pb2.GetRequest(session_id=SESSION, request_id=REQUEST))

    async def message_such(self, such: Callable[[message_pb2.Message], bool]) -> message_pb2.Message:
        """The message, once it is so."""
        async with asyncio.timeout(15):
            while not such(message := await self.message()):
                await asyncio.sleep(0.02)
        return message

    async def resend_failed(self, message_id: str) -> event_pb2.ResendFailed:
        event = await self.live.wait_for(SESSION, "resendFailed", messageId=message_id)
        return ParseDict(event, event_pb2.Event()).resend_failed


@pytest.fixture
async def stage(
    node_environment: dict[str, str], simulator: SimulatorControl, live: LiveEvents
) -> AsyncIterator[Stage]:
    async with cluster(node_environment, simulator, 1, nodes=2, on_first=True) as there:
        yield Stage(there, there.nodes[0], simulator, live)


async def restart(stage: Stage) -> None:
    await stage.asked.sessions.Restart(session_pb2.RestartRequest(session_id=SESSION))


async def kill(stage: Stage) -> None:
    (process,) = stage.there.nodes[0].session_processes()
    process.kill()
    await asyncio.to_thread(psutil.wait_procs, [process], 10)


async def stop_node(stage: Stage) -> None:
    stage.asked = stage.there.nodes[1]
    assert await stage.there.nodes[0].stop() == 0


async def send_more(stage: Stage) -> None:
    other = await new_phone(stage.simulator, "Other")
    numbers = range(KEPT_IN_MEMORY + 1)
    await asyncio.gather(*(stage.asked.send(SESSION, f"+{other}", f"text {n}", f"more-{n}") for n in numbers))


Meanwhile = Callable[[Stage], Awaitable[None]]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("meanwhile", "is_group"),
    [(restart, False), (kill, False), (stop_node, False), (send_more, False), (stop_node, True)],
    ids=["restart", "kill", "another node", "many sends", "another node, group"],
)
async def test_a_message_that_is_asked_for_is_read_and_confirmed(
    stage: Stage, meanwhile: Meanwhile, is_group: bool
) -> None:
    group = await stage.simulator.create_group(stage.there.phones[SESSION], "Garden", [stage.friend])
    message_id = await stage.send_to_a_phone_that_is_off(group.jid if is_group else f"+{stage.friend}")
    await stage.simulator.send_read_receipts(stage.friend)
    epoch = await stage.epoch()
    await meanwhile(stage)
    if meanwhile is not send_more:
        await stage.is_connected_anew(epoch)
    assert (await stage.message()).state == message_pb2.Message.STATE_SENT
    await stage.switch_on()
    arrived = await stage.simulator.wait_for_inbox(stage.friend, TEXT)
    assert (arrived.id, arrived.retries, arrived.times) == (message_id, 1, 1)
    await stage.live.wait_for(SESSION, "receipt", kind="KIND_RETRY", messageIds=[message_id])
    read = await stage.message_such(lambda message: message.state == message_pb2.Message.STATE_READ)
    assert not (read.HasField("unreadable_since_time") or read.is_resend_failed)
    assert not stage.live.of(SESSION, "resendFailed")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("is_group", [False, True])
async def test_a_message_that_is_not_kept_is_said_to_be_unreadable(stage: Stage, sql: Sql, is_group: bool) -> None:
    member = await new_phone(stage.simulator, "Member")
    group = await stage.simulator.create_group(stage.there.phones[SESSION], "Garden", [stage.friend, member])
    message_id = await stage.send_to_a_phone_that_is_off(group.jid if is_group else f"+{stage.friend}")
    # The other one in the group has it.
    state = message_pb2.Message.STATE_DELIVERED if is_group else message_pb2.Message.STATE_SENT
    await stage.message_such(lambda message: message.state == state)
    epoch = await stage.epoch()
    await restart(stage)
    await stage.is_connected_anew(epoch)
    await sql.execute("DELETE FROM whatsmeow_retry_buffer WHERE message_id = $1", message_id)
    await stage.switch_on()
    lid = (await stage.simulator.phone(stage.friend)).lid
    assert await stage.resend_failed(message_id) == event_pb2.ResendFailed(
        message_id=message_id,
        chat=group.jid if is_group else lid,
        device=lid,
        reason=event_pb2.ResendFailed.REASON_NOT_KEPT,
    )
    unreadable = await stage.message_such(lambda message: message.is_resend_failed)
    assert unreadable.HasField("unreadable_since_time")
    assert unreadable.state == state
    assert [missed.id for missed in await stage.simulator.unreadable(stage.friend)] == [message_id]
