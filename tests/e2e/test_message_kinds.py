"""Messages of every kind that a caller can send, from one session to another: both are of the real client."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

from simulator.control import SimulatorControl
from simulator.process import SimulatorProcess
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.live_events import LiveEvents
from tests.service_process import ServiceProcess, error_info
from zap.v1 import content_pb2, event_pb2
from zap.v1 import message_pb2 as pb
from zap.v1.presence_service_pb2 import SetPresenceRequest
from zap.v1.presence_service_pb2_grpc import PresenceServiceStub

ARRIVAL_S = 20.0
DAY = 86_400


class Stage:
    """Anna's and Bob's sessions on one node."""

    def __init__(self, node: ServiceProcess, simulator: SimulatorControl, sql: Sql, phones: dict[str, str]) -> None:
        self.node, self.simulator, self.sql, self.phones = node, simulator, sql, phones
        self.lids: dict[str, str] = {}
        self._number = 0

    def new_id(self) -> str:
        """A request_id that no other message has."""
        self._number += 1
        return f"r{self._number}"

    async def send(self, by: str, to: str, **fields: Any) -> pb.Message:
        """Send a message, of which WhatsApp's server accepts every one."""
        request = pb.SendRequest(session_id=by, to=to, request_id=self.new_id(), **fields)
        return self.sent(await self.node.messages.Send(request, timeout=30))

    async def about(self, call: str, request: Any) -> pb.Message:
        """Edit, revoke or pin."""
        request.request_id = self.new_id()
        return self.sent(await getattr(self.node.messages, call)(request, timeout=30))

    def sent(self, message: pb.Message) -> pb.Message:
        """The message, which must have been sent."""
        assert not message.HasField("reason"), message.reason
        assert message.message_id
        return message

    async def received(self, session_id: str, message_id: str) -> event_pb2.MessageReceived:
        """The message as it is in a session's log."""
        event = await self.event(session_id, "MESSAGE_RECEIVED", "message_received", message_id)
        assert isinstance(event, event_pb2.MessageReceived)
        return event

    async def receipt(self, session_id: str, message_id: str, kind: int) -> event_pb2.Receipt:
        """A receipt of this kind in a session's log."""
        event = await self.event(session_id, "RECEIPT", "receipt", message_id, kind=kind)
        assert isinstance(event, event_pb2.Receipt)
        return event

    async def event(self, session_id: str, type_: str, field: str, message_id: str, **fields: object) -> object:
        """The event of a session's log about a message, once it is there."""
        query = "SELECT payload FROM zap.event WHERE session_id = $1 AND type = $2 ORDER BY sequence"
        async with asyncio.timeout(ARRIVAL_S):
            while True:
                for row in await self.sql.fetch(query, session_id, type_):
                    event = getattr(event_pb2.Event.FromString(row["payload"]), field)
                    ids = getattr(event, "message_ids", None) or [getattr(event, "message_id", "")]
                    if message_id in ids and all(getattr(event, name) == value for name, value in fields.items()):
                        return event
                await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
async def stage(
    shared_node: ServiceProcess, module_database_url: str, simulator_process: SimulatorProcess
) -> AsyncIterator[Stage]:
    """Both sessions for all tests, none of which may end a process."""
    simulator = simulator_process.control
    sql = await asyncpg.connect(module_database_url)
    stage = Stage(shared_node, simulator, sql, {})
    for name in ("anna", "bob"):
        stage.phones[name] = phone = await new_phone(simulator, name)
        await pair(shared_node, simulator, name, phone)
        stage.lids[name] = (await simulator.phone(phone)).lid
    yield stage
    for name in ("anna", "bob"):
        assert (await shared_node.status(name)).owner.epoch == 1
    await sql.close()


@pytest.fixture(scope="module")
async def group(stage: Stage) -> str:
    """A group of both."""
    members = [stage.phones["bob"]]
    return (await stage.simulator.create_group(stage.phones["anna"], "both", members)).jid


def content(kind: "content_pb2.Content.Kind.ValueType", field: str, **fields: Any) -> content_pb2.Content:
    return content_pb2.Content(kind=kind, field=field, **fields)


JPEG = b"\xff\xd8\xff\xe0 a picture"
VCARD = (
    "BEGIN:VCARD\nVERSION:3.0\nN:;{0};;;\nFN:{0}\nTEL;type=CELL;type=VOICE;waid=4917612345678:+4917612345678\nEND:VCARD"
)
CARD = pb.ContactCards.Card(name="Ada", phones=["+4917612345678"])
OTHER_CARD = pb.ContactCards.Card(name="Bo;b", phones=["4917612345678"])

CONTENTS: list[tuple[dict[str, Any], content_pb2.Content]] = [
    (
        {"text": pb.Text(body="hello")},
        content(content_pb2.Content.KIND_TEXT, "conversation", text=content_pb2.TextContent(body="hello")),
    ),
    (
        {
            "text": pb.Text(
                body="see https://a.example",
                preview=pb.LinkPreview(link="https://a.example", title="A", description="a page", thumbnail=JPEG),
            )
        },
        content(
            content_pb2.Content.KIND_TEXT,
            "extendedTextMessage",
            text=content_pb2.TextContent(
                body="see https://a.example",
                link="https://a.example",
                title="A",
                description="a page",
                thumbnail=JPEG,
            ),
        ),
    ),
    (
        {"location": pb.Location(latitude=52.5, longitude=-13.25, name="Zoo", address="Berlin")},
        content(
            content_pb2.Content.KIND_LOCATION,
            "locationMessage",
            location=content_pb2.LocationContent(latitude=52.5, longitude=-13.25, name="Zoo", address="Berlin"),
        ),
    ),
    (
        {"contacts": pb.ContactCards(cards=[CARD])},
        content(
            content_pb2.Content.KIND_CONTACTS,
            "contactMessage",
            contacts=content_pb2.ContactsContent(
                cards=[content_pb2.ContactCard(name="Ada", vcard=VCARD.format("Ada"))]
            ),
        ),
    ),
    (
        {"contacts": pb.ContactCards(cards=[CARD, OTHER_CARD])},
        content(
            content_pb2.Content.KIND_CONTACTS,
            "contactsArrayMessage",
            contacts=content_pb2.ContactsContent(
                title="2 contacts",
                cards=[
                    content_pb2.ContactCard(name="Ada", vcard=VCARD.format("Ada")),
                    content_pb2.ContactCard(name="Bo;b", vcard=VCARD.format("Bo\\;b")),
                ],
            ),
        ),
    ),
    (
        {"poll": pb.Poll(question="When?", options=["now", "later", "never"], most_choices=2)},
        content(
            content_pb2.Content.KIND_POLL,
            "pollCreationMessage",
            poll=content_pb2.PollContent(question="When?", options=["now", "later", "never"], most_choices=2),
        ),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), CONTENTS, ids=[expected.field for _, expected in CONTENTS])
async def test_a_content_arrives_as_it_was_sent(
    stage: Stage, fields: dict[str, Any], expected: content_pb2.Content
) -> None:
    sent = await stage.send("anna", f"+{stage.phones['bob']}", **fields)
    assert (sent.kind, sent.to) == (pb.Message.KIND_MESSAGE, f"{stage.phones['bob']}@s.whatsapp.net")
    assert sent.chat == stage.lids["bob"]
    received = await stage.received("bob", sent.message_id)
    assert received.content == expected
    assert received.sender == received.chat == stage.lids["anna"]
    assert len(Message.FromString(received.raw).messageContextInfo.messageSecret) == 32
    stored = "SELECT count(*) FROM whatsmeow_message_secrets WHERE message_id = $1 AND our_jid LIKE $2"
    assert await stage.sql.fetchval(stored, sent.message_id, f"{stage.phones['anna']}%") == 1


async def test_a_poll_says_in_its_stanza_that_it_is_one(stage: Stage) -> None:
    sent = await stage.send("anna", stage.lids["bob"], poll=pb.Poll(question="q", options=["a", "b"]))
    assert (await stage.received("bob", sent.message_id)).stanza_type == "poll"


async def test_a_reaction_names_the_message_and_can_be_removed(stage: Stage) -> None:
    sent = await stage.send("anna", stage.lids["bob"], text=pb.Text(body="react to this"))
    received = await stage.received("bob", sent.message_id)
    # As the event has it.
    target = pb.MessageRef(message_id=received.message_id, chat=received.chat, sender=received.sender)
    for emoji in ("👍", ""):
        reaction = pb.Reaction(target=target, emoji=emoji)
        reacted = await stage.send("bob", received.chat, reaction=reaction)
        back = (await stage.received("anna", reacted.message_id)).content
        assert back.kind == content_pb2.Content.KIND_REACTION
        assert (await stage.received("anna", reacted.message_id)).stanza_type == "reaction"
        assert (back.reaction.emoji, back.reaction.is_removed) == (emoji, not emoji)
        assert (back.reaction.target.message_id, back.reaction.target.from_me) == (sent.message_id, True)
        raw = Message.FromString((await stage.received("anna", reacted.message_id)).raw).reactionMessage
        assert (raw.key.remoteJID, raw.key.fromMe) == (stage.lids["anna"], False)


async def test_the_own_message_is_reacted_to_by_its_request_id(stage: Stage) -> None:
    sent = await stage.send("anna", f"+{stage.phones['bob']}", text=pb.Text(body="mine"))
    reaction = pb.Reaction(target=pb.MessageRef(request_id=sent.request_id), emoji="🎉")
    reacted = await stage.send("anna", f"+{stage.phones['bob']}", reaction=reaction)
    received = await stage.received("bob", reacted.message_id)
    target = received.content.reaction.target
    assert (target.message_id, target.author) == (sent.message_id, stage.lids["anna"])
    assert Message.FromString(received.raw).reactionMessage.key.remoteJID == stage.lids["bob"]


async def test_a_text_is_edited_by_its_request_id(stage: Stage) -> None:
    sent = await stage.send("anna", f"+{stage.phones['bob']}", text=pb.Text(body="befor"))
    target = pb.MessageRef(request_id=sent.request_id)
    text = pb.Text(body="before @x", mentions=[stage.lids["bob"]])
    edit = await stage.about("Edit", pb.EditRequest(session_id="anna", target=target, text=text))
    assert (edit.kind, edit.to) == (pb.Message.KIND_EDIT, stage.lids["bob"])
    received = await stage.received("bob", edit.message_id)
    assert (received.is_edit, received.edit_attribute, received.text) == (True, "1", "before @x")
    assert received.content.edit.target.message_id == sent.message_id
    assert received.content.edit.content.text.body == "before @x"


async def test_a_message_is_revoked(stage: Stage) -> None:
    sent = await stage.send("anna", stage.lids["bob"], text=pb.Text(body="never mind"))
    target = pb.MessageRef(message_id=sent.message_id, chat=sent.chat, from_me=True)
    revoke = await stage.about("Revoke", pb.RevokeRequest(session_id="anna", target=target))
    received = await stage.received("bob", revoke.message_id)
    assert (received.content.kind, received.edit_attribute) == (content_pb2.Content.KIND_REVOKE, "7")
    assert received.content.revoke.target.message_id == sent.message_id
    assert not received.content.revoke.by_admin


async def test_an_administrator_revokes_a_members_message(stage: Stage, group: str) -> None:
    sent = await stage.send("bob", group, text=pb.Text(body="rude"))
    received = await stage.received("anna", sent.message_id)
    target = pb.MessageRef(message_id=sent.message_id, chat=group, sender=received.sender)
    revoke = await stage.about("Revoke", pb.RevokeRequest(session_id="anna", target=target))
    back = await stage.received("bob", revoke.message_id)
    assert (back.content.revoke.by_admin, back.edit_attribute) == (True, "8")
    assert back.content.revoke.target.message_id == sent.message_id
    assert back.content.revoke.target.author == stage.lids["bob"]


async def test_a_message_is_pinned_and_unpinned(stage: Stage) -> None:
    sent = await stage.send("anna", stage.lids["bob"], text=pb.Text(body="important"))
    request = pb.PinInChatRequest(session_id="anna", target=pb.MessageRef(request_id=sent.request_id))
    for duration in (Duration(seconds=7 * DAY), None):
        request.ClearField("duration")
        if duration is not None:
            request.duration.CopyFrom(duration)
        pinned = await stage.about("PinInChat", request)
        received = await stage.received("bob", pinned.message_id)
        assert (received.content.kind, received.edit_attribute) == (content_pb2.Content.KIND_PIN, "2")
        assert received.content.pin.is_pinned == (duration is not None)
        assert received.content.pin.target.message_id == sent.message_id
        seconds = Message.FromString(received.raw).messageContextInfo.messageAddOnDurationInSecs
        assert seconds == (7 * DAY if duration is not None else 0)


async def test_a_reply_quotes_the_message_in_a_chat_of_two(stage: Stage) -> None:
    sent = await stage.send("anna", f"+{stage.phones['bob']}", text=pb.Text(body="shall we?"))
    received = await stage.received("bob", sent.message_id)
    target = pb.MessageRef(message_id=sent.message_id, chat=received.chat, sender=received.sender)
    reply = await stage.send("bob", received.chat, text=pb.Text(body="yes"), reply_to=target, quoted_text="shall we?")
    quote = (await stage.received("anna", reply.message_id)).context.quote
    assert (quote.message_id, quote.author, quote.text) == (sent.message_id, stage.lids["anna"], "shall we?")
    assert not quote.chat
    own = await stage.send(
        "anna", f"+{stage.phones['bob']}", text=pb.Text(body="?"), reply_to=pb.MessageRef(request_id=sent.request_id)
    )
    quote = (await stage.received("bob", own.message_id)).context.quote
    assert (quote.message_id, quote.author) == (sent.message_id, stage.lids["anna"])


async def test_mentions_and_a_private_reply_in_a_group(stage: Stage, group: str) -> None:
    bob = stage.lids["bob"]
    text = pb.Text(body=f"@{bob.partition('@')[0]}", mentions=[bob], mentions_everyone=True)
    sent = await stage.send("anna", group, text=text)
    assert sent.chat == group
    received = await stage.received("bob", sent.message_id)
    assert list(received.context.mentions) == [bob]
    assert Message.FromString(received.raw).extendedTextMessage.contextInfo.nonJIDMentions == 1
    target = pb.MessageRef(message_id=sent.message_id, chat=received.chat, sender=received.sender)
    private = await stage.send("bob", received.sender, location=pb.Location(latitude=1), reply_to=target)
    back = await stage.received("anna", private.message_id)
    assert (back.chat, back.content.kind) == (bob, content_pb2.Content.KIND_LOCATION)
    assert (back.context.quote.message_id, back.context.quote.chat) == (sent.message_id, group)


async def test_a_reaction_in_a_group_names_the_author(stage: Stage, group: str) -> None:
    sent = await stage.send("anna", group, text=pb.Text(body="react to this, all"))
    received = await stage.received("bob", sent.message_id)
    target = pb.MessageRef(message_id=sent.message_id, sender=received.sender)
    reacted = await stage.send("bob", group, reaction=pb.Reaction(target=target, emoji="👍"))
    back = await stage.received("anna", reacted.message_id)
    assert (back.chat, back.content.reaction.target.author) == (group, stage.lids["anna"])
    key = Message.FromString(back.raw).reactionMessage.key
    assert (key.remoteJID, key.participant, key.fromMe) == (group, stage.lids["anna"], False)


async def test_a_message_says_when_it_disappears(stage: Stage) -> None:
    day = Duration(seconds=DAY)
    sent = await stage.send("anna", stage.lids["bob"], poll=pb.Poll(question="q", options=["a", "b"]), expiration=day)
    assert (await stage.received("bob", sent.message_id)).context.disappearing_seconds == DAY


async def test_typing_is_shown_before_the_message(stage: Stage, live: LiveEvents) -> None:
    # WhatsApp shows typing only to those who are online.
    presence: Any = PresenceServiceStub(stage.node.channel)
    await presence.SetPresence(SetPresenceRequest(session_id="bob", is_online=True))
    sent = await stage.send(
        "anna", f"+{stage.phones['bob']}", text=pb.Text(body="wait"), typing_for=Duration(seconds=1)
    )
    assert (await stage.received("bob", sent.message_id)).text == "wait"
    accepted, left = sent.create_time.ToDatetime(), sent.update_time.ToDatetime()
    assert (left - accepted).total_seconds() >= 1
    received = await live.wait_for("bob", "messageReceived", messageId=sent.message_id)
    (shown,) = live.of("bob", "chatPresence")
    assert shown["chatPresence"] == {
        "chat": stage.lids["anna"],
        "sender": stage.lids["anna"],
        "activity": "ACTIVITY_TYPING",
    }
    assert live.events.index(shown) < live.events.index(received)


@pytest.mark.parametrize("is_played", [False, True])
async def test_the_sender_sees_that_messages_were_read(stage: Stage, is_played: bool) -> None:
    texts = [await stage.send("anna", stage.lids["bob"], text=pb.Text(body=f"read {n}")) for n in range(2)]
    ids = [sent.message_id for sent in texts]
    for message_id in ids:
        await stage.received("bob", message_id)
    request = pb.MarkReadRequest(
        session_id="bob", chat=f"{stage.phones['anna']}@s.whatsapp.net", message_ids=ids, is_played=is_played
    )
    await stage.node.messages.MarkRead(request, timeout=10)
    kind = event_pb2.Receipt.KIND_PLAYED if is_played else event_pb2.Receipt.KIND_READ
    for message_id in ids:
        receipt = await stage.receipt("anna", message_id, kind)
        assert receipt.sender.partition(":")[0] == stage.lids["bob"].partition("@")[0]
    for sent in texts:
        stored = await stage.node.messages.Get(pb.GetRequest(session_id="anna", request_id=sent.request_id))
        assert stored.state == pb.Message.STATE_READ


async def test_messages_of_a_group_are_read_by_author(stage: Stage, group: str) -> None:
    sent = await stage.send("anna", group, text=pb.Text(body="to all"))
    received = await stage.received("bob", sent.message_id)
    request = pb.MarkReadRequest(session_id="bob", chat=group, message_ids=[sent.message_id])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stage.node.messages.MarkRead(request, timeout=10)
    assert error_info(refused.value).reason == "INVALID_ARGUMENT"
    request.sender = received.sender
    await stage.node.messages.MarkRead(request, timeout=10)
    receipt = await stage.receipt("anna", sent.message_id, event_pb2.Receipt.KIND_READ)
    assert (receipt.chat, receipt.is_group) == (group, True)


async def test_what_was_sent_is_in_no_log(stage: Stage) -> None:
    sent = await stage.send("anna", stage.lids["bob"], poll=pb.Poll(question="a-secret-question", options=["a", "b"]))
    await stage.received("bob", sent.message_id)
    assert "a-secret-question" not in stage.node.log()
