"""Messages of every kind, from a phone through the real encryption and the real client into the log and onto Redis."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import asyncpg
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

from simulator.control import SimulatorControl
from simulator.letters import Letter
from simulator.process import SimulatorProcess
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.live_events import LiveEvents
from tests.service_process import ServiceProcess
from tests.unit.worker.content.test_content import CONTENTS
from tests.unit.worker.content.test_hostile_contents import rubbish
from tests.unit.worker.test_messages import nested, wire_field
from zap.v1 import content_pb2, event_pb2, watch_pb2, watch_pb2_grpc

if TYPE_CHECKING:
    from zap.v1.watch_pb2_grpc import EventServiceAsyncStub

RAW_AT_ONCE = 1024 * 1024
PATIENCE = 20.0


async def told(sql: Sql, message_id: str, count: int = 1) -> list[event_pb2.Event]:
    """What is in the log of a message, once it is there."""
    async with asyncio.timeout(PATIENCE):
        while True:
            rows = await sql.fetch("SELECT payload FROM zap.event WHERE session_id = 'anna' ORDER BY sequence")
            events = [event_pb2.Event.FromString(row["payload"]) for row in rows]
            found = [event for event in events if _message_id(event) == message_id]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


def _message_id(event: event_pb2.Event) -> str:
    payload = event.WhichOneof("payload")
    return str(getattr(getattr(event, payload), "message_id", "")) if payload else ""


class Stage:
    """Anna's session on a node, and Bob, who writes to her."""

    def __init__(self, node: ServiceProcess, simulator: SimulatorControl, sql: Sql, anna: str, bob: str) -> None:
        self.node, self.simulator, self.sql, self.anna, self.bob = node, simulator, sql, anna, bob

    async def post(self, letter: Letter) -> str:
        return await self.simulator.post(self.bob, self.anna, letter)

    async def received(self, letter: Letter) -> event_pb2.MessageReceived:
        (event,) = await told(self.sql, await self.post(letter))
        return event.message_received


@pytest.fixture(scope="module")
async def stage(
    shared_node: ServiceProcess, module_database_url: str, simulator_process: SimulatorProcess
) -> AsyncIterator[Stage]:
    """One session for all: each test asks for its own messages, and none may end the process."""
    simulator = simulator_process.control
    anna, bob = await new_phone(simulator, "Anna"), await new_phone(simulator, "Bob")
    await pair(shared_node, simulator, "anna", anna)
    sql = await asyncpg.connect(module_database_url)
    yield Stage(shared_node, simulator, sql, anna, bob)
    assert (await shared_node.status("anna")).owner.epoch == 1
    await sql.close()


async def test_every_kind_of_content_arrives_with_its_types_and_its_bytes(stage: Stage, live: LiveEvents) -> None:
    lid = (await stage.simulator.phone(stage.bob)).lid
    for message, kind, expected, words in CONTENTS:
        received = await stage.received(Letter(message.SerializeToString()))
        assert Message.FromString(received.raw) == message
        content = content_pb2.Content(kind=kind, field=received.content.field, **expected)
        assert received.content == _written_by(lid, content), message
        assert received.text == words
        assert (received.sender, received.chat) == (lid, lid)
        assert received.sender_alternative == received.chat_alternative == f"{stage.bob}@s.whatsapp.net"
        assert (received.push_name, received.chat_kind) == ("Bob", event_pb2.CHAT_KIND_PERSON)
        on_redis = await live.wait_for("anna", "messageReceived", messageId=received.message_id)
        assert ParseDict(on_redis["messageReceived"], event_pb2.MessageReceived()) == received
    assert "BEGIN:VCARD" not in stage.node.log()
    assert "lunch?" not in stage.node.log()


def _written_by(lid: str, content: content_pb2.Content) -> content_pb2.Content:
    """The table of contents has messages of another author."""
    text = json.dumps(MessageToDict(content)).replace("111@lid", lid)
    return ParseDict(json.loads(text), content_pb2.Content())


async def test_what_the_stanza_says_of_a_message_is_told(stage: Stage) -> None:
    letter = Letter(Message(conversation="x").SerializeToString(), type="media", media_type="image", edit="1")
    received = await stage.received(letter)
    assert (received.stanza_type, received.media_type, received.edit_attribute) == ("media", "image", "1")
    assert received.addressing_mode == event_pb2.ADDRESSING_MODE_LID
    assert received.HasField("sent_time")


async def test_what_the_account_writes_on_its_phone_names_whom_it_went_to(stage: Stage) -> None:
    wrapped = Message(conversation="mine").SerializeToString()
    message_id = await stage.simulator.post(stage.anna, stage.bob, Letter(wrapped))
    (event,) = await told(stage.sql, message_id)
    received = event.message_received
    assert (received.from_me, received.text) == (True, "mine")
    assert received.chat == (await stage.simulator.phone(stage.bob)).lid
    assert received.chat_alternative == f"{stage.bob}@s.whatsapp.net"


async def test_the_wrappings_that_the_library_undoes_leave_their_flags(stage: Stage) -> None:
    for wrapping, flags in {
        37: (True, False, False),
        40: (False, True, False),
        55: (True, False, False),
        58: (False, False, True),
    }.items():
        raw = wire_field(wrapping, wire_field(1, Message(conversation="inside").SerializeToString()))
        received = await stage.received(Letter(raw))
        assert received.text == "inside"
        assert (received.is_view_once, received.is_disappearing, received.is_edit) == flags


async def test_a_message_that_cannot_be_decrypted_is_told_and_then_comes(stage: Stage) -> None:
    await stage.received(Letter(Message(conversation="first").SerializeToString()))
    letter = Letter(Message(conversation="second").SerializeToString(), is_garbled=True)
    unreadable, received = await told(stage.sql, await stage.post(letter), 2)
    assert unreadable.type == event_pb2.Event.TYPE_MESSAGE_UNREADABLE
    told_of = unreadable.message_unreadable
    assert (told_of.reason, told_of.is_retry_requested) == (event_pb2.MessageUnreadable.REASON_UNDECRYPTABLE, True)
    assert not told_of.is_hidden
    assert (received.message_received.text, received.message_received.retry_count) == ("second", 1)


async def test_a_message_that_only_the_phone_has_is_told(stage: Stage) -> None:
    letter = Letter(Message(conversation="once").SerializeToString(), unavailable="view_once")
    (event,) = await told(stage.sql, await stage.post(letter))
    assert event.message_unreadable.reason == event_pb2.MessageUnreadable.REASON_UNAVAILABLE


async def test_what_a_sender_says_of_a_failure_ends_nothing(stage: Stage) -> None:
    plain = Message(conversation="plain").SerializeToString()
    for word, is_hidden in {"hide": True, "whatever a stranger likes": False}.items():
        letter = Letter(plain, is_garbled=True, decrypt_fail=word)
        unreadable, _ = await told(stage.sql, await stage.post(letter), 2)
        assert unreadable.message_unreadable.is_hidden == is_hidden
        assert (await stage.received(Letter(plain))).text == "plain"
    assert "process ended" not in stage.node.log()


async def test_what_a_stranger_makes_up_arrives_whole(stage: Stage) -> None:
    for raw in (
        # A wrapping (for group mentions) of which the library does not take off the outermost.
        nested(60, 62),
        nested(500, 62),
        wire_field(1, b"ab\xff\xed\xa0\x80\0"),
        wire_field(996, b"new"),
        wire_field(12, b"\x10\xe7\x07"),  # a protocolMessage of a type that nobody knows
    ):
        assert (await stage.received(Letter(raw))).raw == raw
    assert "process ended" not in stage.node.log()


async def test_a_huge_message_arrives_in_parts(stage: Stage) -> None:
    raw = Message(conversation="x" * (3 * RAW_AT_ONCE)).SerializeToString()
    first, *parts = await told(stage.sql, await stage.post(Letter(raw)), 4)
    assert first.message_received.raw_size == len(raw)
    assert first.message_received.raw + b"".join(part.message_raw_part.raw for part in parts) == raw
    assert first.message_received.is_truncated
    # Behind it there is something, and a client that is told of no size but gRPC's own gets that far.
    await stage.received(Letter(Message(conversation="after it").SerializeToString()))
    assert await _watched(stage.node, "after it") >= len(raw)


async def _watched(node: ServiceProcess, last: str) -> int:
    """Follow the log from its start to a text; the bytes of messages that came before it."""
    stub: EventServiceAsyncStub = watch_pb2_grpc.EventServiceStub(node.channel)
    size = 0
    async with asyncio.timeout(PATIENCE):
        async for response in stub.Watch(watch_pb2.WatchRequest(from_start=True)):
            if response.event.message_received.text == last:
                return size
            size += len(response.event.message_received.raw) + len(response.event.message_raw_part.raw)
    raise AssertionError("the stream ended OK, which it never does")


async def test_rubbish_in_every_field_ends_nothing(stage: Stage) -> None:
    chance = random.Random(7)
    for _ in range(150):
        await stage.post(Letter(rubbish(Message.DESCRIPTOR, chance), edit=chance.choice(["", "1", "7", "99"])))
    assert (await stage.received(Letter(Message(conversation="still here").SerializeToString()))).text == "still here"
    log = stage.node.log()
    assert not [
        words for words in ("process ended", "could not be handled", "cannot be converted", "panicked") if words in log
    ]
