"""The messages that requests become, as the library gets them."""

import time
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from neonize.proto.waCommon.WACommon_pb2 import MessageKey
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import (
    ContactMessage,
    ContextInfo,
    ExtendedTextMessage,
    LocationMessage,
    Message,
    PinInChatMessage,
    PollCreationMessage,
    ProtocolMessage,
)

from service.worker.outbound import messages
from service.worker.outbound.contents import CONTENTS
from service.worker.outbound.vcards import vcard
from zap.v1 import message_pb2 as pb

PERSON, LID, GROUP, MEMBER = "49170@s.whatsapp.net", "1@lid", "12345@g.us", "2@lid"
OWN_NUMBER, OWN_LID = "49171@s.whatsapp.net", "9@lid"
SECRET = bytes(range(32))
HI = pb.Text(body="hi")
THEIRS = pb.MessageRef(message_id="A", chat=LID, sender=LID)
OURS = pb.MessageRef(message_id="B", chat=PERSON, from_me=True)
IN_GROUP = pb.MessageRef(message_id="C", chat=GROUP, sender=MEMBER)


class Addresses:
    """Of an account, which knows the LID of one person."""

    def chat_of(self, jid: str) -> str:
        return LID if jid == PERSON else jid

    def own_address(self, chat: str) -> str:
        return OWN_NUMBER if chat.endswith("@s.whatsapp.net") else OWN_LID


def built(request: Any, to: str = LID, secret: bytes = b"") -> Message:
    return messages.build(request, to, secret, Addresses())


def context(request: pb.SendRequest, to: str = LID) -> ContextInfo:
    return built(request, to).extendedTextMessage.contextInfo


def test_a_plain_text_is_a_conversation() -> None:
    assert built(pb.SendRequest(text=HI)) == Message(conversation="hi")
    assert built(pb.SendRequest(text=HI, typing_for=Duration(seconds=1))) == Message(conversation="hi")


def test_mentions_are_in_the_context_of_a_text() -> None:
    text = pb.Text(body="@2 @3", mentions=[MEMBER, "3@lid"], mentions_everyone=True)
    expected = ContextInfo(mentionedJID=[MEMBER, "3@lid"], nonJIDMentions=1)
    extended = ExtendedTextMessage(text="@2 @3", contextInfo=expected)
    assert built(pb.SendRequest(text=text), GROUP) == Message(extendedTextMessage=extended)


def test_a_preview_is_the_callers() -> None:
    preview = pb.LinkPreview(link="https://a.example", title="t", description="d", thumbnail=b"\xff\xd8\xff")
    extended = built(pb.SendRequest(text=pb.Text(body="see https://a.example", preview=preview))).extendedTextMessage
    assert (extended.text, extended.matchedText) == ("see https://a.example", "https://a.example")
    assert (extended.title, extended.description, extended.JPEGThumbnail) == ("t", "d", b"\xff\xd8\xff")


@pytest.mark.parametrize(
    ("reference", "to", "expected"),
    [
        (THEIRS, LID, ContextInfo(stanzaID="A", participant=LID)),
        (THEIRS, PERSON, ContextInfo(stanzaID="A", participant=LID)),
        (OURS, PERSON, ContextInfo(stanzaID="B", participant=OWN_LID)),
        (IN_GROUP, GROUP, ContextInfo(stanzaID="C", participant=MEMBER)),
        (IN_GROUP, MEMBER, ContextInfo(stanzaID="C", participant=MEMBER, remoteJID=GROUP)),
        (
            pb.MessageRef(message_id="D", chat="55@s.whatsapp.net", from_me=True),
            "55@s.whatsapp.net",
            ContextInfo(stanzaID="D", participant=OWN_NUMBER),
        ),
    ],
)
def test_a_reply_names_the_message_its_author_and_another_chat(
    reference: pb.MessageRef, to: str, expected: ContextInfo
) -> None:
    expected.quotedMessage.conversation = "was it?"
    assert context(pb.SendRequest(text=HI, reply_to=reference, quoted_text="was it?"), to) == expected


def test_a_message_says_when_it_disappears() -> None:
    assert context(pb.SendRequest(text=HI, expiration=Duration(seconds=86400))) == ContextInfo(expiration=86400)


@pytest.mark.parametrize(
    "content",
    [
        {"location": pb.Location(latitude=1, longitude=2)},
        {"contacts": pb.ContactCards(cards=[pb.ContactCards.Card(name="A", phones=["49170"])])},
        {"contacts": pb.ContactCards(cards=[pb.ContactCards.Card(name="A", phones=["49170"])] * 2)},
        {"poll": pb.Poll(question="q", options=["a", "b"])},
        {"text": HI},
    ],
)
def test_every_content_carries_the_context(content: dict[str, Any]) -> None:
    request = pb.SendRequest(**content, reply_to=THEIRS, expiration=Duration(seconds=86400))
    ((_, body),) = built(request).ListFields()
    assert (body.contextInfo.stanzaID, body.contextInfo.expiration) == ("A", 86400)
    ((_, body),) = built(pb.SendRequest(**content)).ListFields()
    assert content.get("text") or not body.contextInfo.ListFields()


def test_every_content_of_a_send_has_a_builder() -> None:
    fields = pb.SendRequest.DESCRIPTOR.oneofs_by_name["content"].fields
    kinds = {kind.DESCRIPTOR for kind in CONTENTS}
    assert {field.message_type for field in fields if field.name != "reaction"} == kinds


def test_a_place() -> None:
    place = pb.Location(latitude=52.5, longitude=13.4, name="Zoo", address="Berlin")
    expected = LocationMessage(degreesLatitude=52.5, degreesLongitude=13.4, name="Zoo", address="Berlin")
    assert built(pb.SendRequest(location=place)) == Message(locationMessage=expected)


def test_contacts_are_one_card_or_an_array() -> None:
    ada = pb.ContactCards.Card(name="Ada", phones=["+4917612345678"])
    bob = pb.ContactCards.Card(name="Bob", phones=["4917612345679"])
    cards = [ContactMessage(displayName=card.name, vcard=vcard(card)) for card in (ada, bob)]
    assert built(pb.SendRequest(contacts=pb.ContactCards(cards=[ada]))).contactMessage.vcard == cards[0].vcard
    array = built(pb.SendRequest(contacts=pb.ContactCards(cards=[ada, bob]))).contactsArrayMessage
    assert (array.displayName, list(array.contacts)) == ("2 contacts", cards)


def test_a_vcard_has_the_numbers_by_which_whatsapp_finds_the_account() -> None:
    card = pb.ContactCards.Card(name="Ada", phones=["+4917612345678", "4917612345679"], organization="Analytical")
    assert vcard(card).split("\n") == [
        "BEGIN:VCARD",
        "VERSION:3.0",
        "N:;Ada;;;",
        "FN:Ada",
        "ORG:Analytical;",
        "TEL;type=CELL;type=VOICE;waid=4917612345678:+4917612345678",
        "TEL;type=CELL;type=VOICE;waid=4917612345679:+4917612345679",
        "END:VCARD",
    ]


def test_a_name_cannot_add_to_a_vcard() -> None:
    card = pb.ContactCards.Card(name="a;b,c\\d\r\nTEL:1", organization="x\ny", phones=["4917612345678"])
    lines = vcard(card).split("\n")
    assert lines[2:5] == ["N:;a\\;b\\,c\\\\d\\nTEL:1;;;", "FN:a\\;b\\,c\\\\d\\nTEL:1", "ORG:x\\ny;"]
    assert len(lines) == 7


def test_a_poll() -> None:
    options = [PollCreationMessage.Option(optionName=name) for name in ("a", "b", "c")]
    expected = PollCreationMessage(name="q", options=options, selectableOptionsCount=2)
    message = built(pb.SendRequest(poll=pb.Poll(question="q", options=["a", "b", "c"], most_choices=2)), secret=SECRET)
    assert message.pollCreationMessage == expected
    assert message.messageContextInfo.messageSecret == SECRET


@pytest.mark.parametrize(
    ("reference", "key"),
    [
        (THEIRS, MessageKey(remoteJID=LID, fromMe=False, ID="A")),
        (OURS, MessageKey(remoteJID=LID, fromMe=True, ID="B")),
        (IN_GROUP, MessageKey(remoteJID=GROUP, fromMe=False, ID="C", participant=MEMBER)),
        (
            pb.MessageRef(message_id="D", chat=GROUP, from_me=True),
            MessageKey(remoteJID=GROUP, fromMe=True, ID="D"),
        ),
    ],
)
def test_a_key_names_the_chat_as_whatsapp_has_it_and_a_members_author(
    reference: pb.MessageRef, key: MessageKey
) -> None:
    reaction = built(pb.SendRequest(reaction=pb.Reaction(target=reference, emoji="👍"))).reactionMessage
    revoke = built(pb.RevokeRequest(target=reference)).protocolMessage
    pin = built(pb.PinInChatRequest(target=reference)).pinInChatMessage
    assert [reaction.key, revoke.key, pin.key] == [key] * 3


def test_a_reaction_has_its_time() -> None:
    before = time.time_ns() // 1_000_000
    message = built(pb.SendRequest(reaction=pb.Reaction(target=THEIRS, emoji="👍")))
    assert message.reactionMessage.text == "👍"
    assert before <= message.reactionMessage.senderTimestampMS <= time.time_ns() // 1_000_000
    assert built(pb.SendRequest(reaction=pb.Reaction(target=THEIRS))).reactionMessage.text == ""


def test_an_edit_is_wrapped() -> None:
    text = pb.Text(body="@2", mentions=[MEMBER])
    before = time.time_ns() // 1_000_000
    edit = built(pb.EditRequest(target=OURS, text=text)).editedMessage.message.protocolMessage
    assert edit.type == ProtocolMessage.MESSAGE_EDIT
    assert edit.key == MessageKey(remoteJID=LID, fromMe=True, ID="B")
    assert edit.editedMessage.extendedTextMessage.text == "@2"
    assert list(edit.editedMessage.extendedTextMessage.contextInfo.mentionedJID) == [MEMBER]
    assert before <= edit.timestampMS <= time.time_ns() // 1_000_000


def test_a_revoke_has_its_type() -> None:
    revoke = built(pb.RevokeRequest(target=IN_GROUP)).protocolMessage
    assert revoke.HasField("type")
    assert revoke.type == ProtocolMessage.REVOKE


def test_a_pin_has_a_duration_and_its_removal_none() -> None:
    pin = built(pb.PinInChatRequest(target=THEIRS, duration=Duration(seconds=604800)), secret=SECRET)
    assert pin.pinInChatMessage.type == PinInChatMessage.PIN_FOR_ALL
    assert pin.messageContextInfo.messageAddOnDurationInSecs == 604800
    assert pin.messageContextInfo.messageSecret == SECRET
    assert pin.pinInChatMessage.senderTimestampMS > 0
    unpin = built(pb.PinInChatRequest(target=THEIRS))
    assert unpin.pinInChatMessage.type == PinInChatMessage.UNPIN_FOR_ALL
    assert not unpin.HasField("messageContextInfo")


@pytest.mark.parametrize(
    "request_",
    [
        pb.SendRequest(text=HI),
        pb.SendRequest(location=pb.Location()),
        pb.SendRequest(reaction=pb.Reaction(target=THEIRS)),
        pb.EditRequest(target=OURS, text=HI),
        pb.RevokeRequest(target=OURS),
    ],
)
def test_every_message_carries_the_secret(request_: Any) -> None:
    assert built(request_, secret=SECRET).messageContextInfo.messageSecret == SECRET


def test_only_a_send_is_preceded_by_typing() -> None:
    assert messages.typing_seconds(pb.SendRequest(typing_for=Duration(seconds=3, nanos=500_000_000))) == 3.5
    assert messages.typing_seconds(pb.SendRequest()) == 0
    assert messages.typing_seconds(pb.RevokeRequest()) == 0
