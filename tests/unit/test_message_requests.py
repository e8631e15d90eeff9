"""What the requests of MessageService become, and which are refused."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from service.domain.errors import FailedPrecondition, InvalidArgument
from service.domain.records import MessageKind, MessageState, NewMessage, OutboundMessage
from service.protocol import sending
from service.protocol.payloads import message_of
from service.protocol.validation import violations_of
from tests.contents import text_content
from zap.v1 import message_pb2 as pb
from zap.worker.v1 import calls_pb2

NOW = datetime.now(UTC)
PERSON, LID, GROUP = "4917612345678@s.whatsapp.net", "123456@lid", "12345-67890@g.us"
OTHER, OTHER_LID = "4917612345679@s.whatsapp.net", "654321@lid"
HELLO = pb.Text(body="hello")
SENT = OutboundMessage("a", "r0", PERSON, 1, MessageState.SENT, "WA0", "", NOW, NOW, NOW, chat=LID)
OWN = pb.MessageRef(message_id="A", chat=LID, from_me=True)
BY_ID = pb.MessageRef(request_id="r0")


def send(to: str = PERSON, **fields: Any) -> pb.SendRequest:
    return pb.SendRequest(session_id="a", to=to, request_id="r", **fields)


def new(request: pb.SendRequest, *sent: OutboundMessage) -> NewMessage:
    return sending.new_message(request, {message.request_id: message for message in sent})


def content_of(made: NewMessage, kind: type[Any] = pb.SendRequest) -> Any:
    return message_of(made.content, kind)


def test_a_text_becomes_a_payload_with_the_fingerprint_of_every_release() -> None:
    """A caller may repeat a request_id of the release before, which stored this hash of recipient and text."""
    made = new(pb.SendRequest(session_id="a", to="+4917612345678", request_id="r", text=pb.Text(body="Grüße")))
    assert (made.request_id, made.to, made.kind) == ("r", PERSON, MessageKind.MESSAGE)
    assert made.content == text_content("Grüße")
    assert made.fingerprint.hex() == ("1360ab75878e43ffd1261950f5b50fe7a3b16381abfbdbd4301f5795a68b85c6")


def test_the_fingerprints_of_other_messages_stay_what_they_are() -> None:
    """They are stored, too: a change here refuses what callers repeat after a deploy."""
    poll = new(send(poll=pb.Poll(question="q", options=["a", "b"])))
    assert poll.fingerprint.hex() == "5ed11e2b99ae0da00b3c63ae7abed753b0b8280b9df290a76fe8d0038e2b2c04"
    edit = sending.new_edit(pb.EditRequest(session_id="a", request_id="r", target=OWN, text=HELLO), {})
    assert edit.fingerprint.hex() == "e829e12b36f6fc2b1c8dfe6e8f0ad08a50d6ac445c6bc9f5595456d727099c40"


def test_messages_that_differ_have_different_fingerprints() -> None:
    day, week = Duration(seconds=86400), Duration(seconds=604800)
    about: dict[str, Any] = {"target": OWN}
    requests = [
        new(send(text=HELLO)),
        new(send(LID, text=HELLO)),
        new(send(text=HELLO, expiration=day)),
        new(send(text=HELLO, expiration=week)),
        new(send(text=HELLO, typing_for=Duration(seconds=1))),
        new(send(text=HELLO, reply_to=OWN)),
        new(send(text=HELLO, reply_to=BY_ID), SENT),
        new(send(text=pb.Text(body="hello", mentions=[LID]))),
        new(send(location=pb.Location())),
        new(send(location=pb.Location(latitude=1))),
        new(send(LID, reaction=pb.Reaction(target=OWN))),
        new(send(LID, reaction=pb.Reaction(target=OWN, emoji="👍"))),
        sending.new_revoke(pb.RevokeRequest(**about), {}),
        sending.new_pin(pb.PinInChatRequest(**about), {}),
        sending.new_pin(pb.PinInChatRequest(**about, duration=day), {}),
        sending.new_edit(pb.EditRequest(**about, text=HELLO), {}),
    ]
    assert len({made.fingerprint for made in requests}) == len(requests)


def test_a_repetition_has_the_same_fingerprint_whatever_became_of_the_message_it_refers_to() -> None:
    request = send(text=HELLO, reply_to=BY_ID)
    later = replace(SENT, chat="", to=LID)
    assert new(request, SENT).fingerprint == new(request, later).fingerprint


def test_a_process_gets_the_request_without_what_the_core_keeps() -> None:
    request = send(text=HELLO, typing_for=Duration(seconds=3))
    assert content_of(new(request)) == pb.SendRequest(text=HELLO, typing_for=Duration(seconds=3))
    assert request.session_id, "the caller's request stays as it is"


@pytest.mark.parametrize(
    ("reference", "resolved"),
    [
        (BY_ID, pb.MessageRef(message_id="WA0", chat=LID, from_me=True)),
        (pb.MessageRef(message_id="A"), pb.MessageRef(message_id="A", chat=PERSON, sender=PERSON)),
        (pb.MessageRef(message_id="A", chat=LID), pb.MessageRef(message_id="A", chat=LID, sender=LID)),
        (pb.MessageRef(message_id="A", chat=LID, sender=PERSON), pb.MessageRef(message_id="A", chat=LID, sender=LID)),
        (OWN, OWN),
        (pb.MessageRef(message_id="A", chat=LID, from_me=True, sender=OTHER), OWN),
        (
            pb.MessageRef(message_id="A", chat=GROUP, sender=OTHER_LID),
            pb.MessageRef(message_id="A", chat=GROUP, sender=OTHER_LID),
        ),
    ],
)
def test_a_reference_is_resolved_before_a_process_gets_it(reference: pb.MessageRef, resolved: pb.MessageRef) -> None:
    assert content_of(new(send(text=HELLO, reply_to=reference), SENT)).reply_to == resolved


def test_a_message_of_an_earlier_release_is_referred_to_by_its_recipient() -> None:
    content = content_of(new(send(text=HELLO, reply_to=BY_ID), replace(SENT, chat="")))
    assert content.reply_to == pb.MessageRef(message_id="WA0", chat=PERSON, from_me=True)


@pytest.mark.parametrize(
    ("parse", "request_", "kind"),
    [
        (sending.new_edit, pb.EditRequest(target=BY_ID, text=HELLO), MessageKind.EDIT),
        (sending.new_revoke, pb.RevokeRequest(target=BY_ID), MessageKind.REVOKE),
        (sending.new_pin, pb.PinInChatRequest(target=BY_ID), MessageKind.PIN),
    ],
)
def test_what_is_about_a_message_goes_to_its_chat(
    parse: Callable[[Any, Mapping[str, OutboundMessage]], NewMessage], request_: Any, kind: MessageKind
) -> None:
    request_.session_id, request_.request_id = "a", "r"
    assert list(sending.referenced_ids(request_)) == ["r0"]
    made = parse(request_, {"r0": SENT})
    assert (made.request_id, made.to, made.kind) == ("r", LID, kind)
    content = content_of(made, type(request_))
    assert content.target == pb.MessageRef(message_id="WA0", chat=LID, from_me=True)
    assert not content.session_id
    assert not content.request_id


def test_references_of_a_request_are_found_wherever_they_are() -> None:
    assert list(sending.referenced_ids(send(text=HELLO))) == []
    assert list(sending.referenced_ids(send(text=HELLO, reply_to=OWN))) == []
    assert list(sending.referenced_ids(send(text=HELLO, reply_to=BY_ID))) == ["r0"]
    assert list(sending.referenced_ids(send(reaction=pb.Reaction(target=BY_ID)))) == ["r0"]


def test_a_message_without_an_id_cannot_be_referred_to() -> None:
    assert sending.check_was_sent(SENT) is SENT
    with pytest.raises(FailedPrecondition) as refused:
        sending.check_was_sent(replace(SENT, message_id="", state=MessageState.FAILED))
    assert refused.value.reason == "MESSAGE_NOT_SENT"
    assert refused.value.metadata == {"session_id": "a", "request_id": "r0", "state": "FAILED"}


def reaction(emoji: str = "👍", to: str = LID, target: pb.MessageRef = OWN, **fields: Any) -> pb.SendRequest:
    return send(to, reaction=pb.Reaction(target=target, emoji=emoji), **fields)


def poll(question: str, *options: str, most_choices: int = 0) -> pb.SendRequest:
    return send(poll=pb.Poll(question=question, options=options, most_choices=most_choices))


def preview(link: str, thumbnail: bytes = b"") -> pb.SendRequest:
    given = pb.LinkPreview(link=link, title="t", thumbnail=thumbnail)
    return send(text=pb.Text(body="see https://a.example", preview=given))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (send(text=HELLO, quoted_text="x"), "quoted_text"),
        (send(text=pb.Text(body="x", mentions_everyone=True)), "text.mentions_everyone"),
        (preview("https://b.example"), "text.preview.link"),
        (preview("https://a.example", b"GIF89a"), "text.preview.thumbnail"),
        (poll(" ", "a", "b"), "poll.question"),
        (poll("q", "a", " "), "poll.options[1]"),
        (poll("q", "a", "b", most_choices=3), "poll.most_choices"),
        (reaction("ok"), "reaction.emoji"),
        (reaction("да"), "reaction.emoji"),
        (reaction("👍 "), "reaction.emoji"),
        (reaction("👍\n"), "reaction.emoji"),
        (reaction("1"), "reaction.emoji"),
        (reaction(reply_to=OWN), "reply_to"),
        (reaction(expiration=Duration(seconds=86400)), "expiration"),
        (reaction(typing_for=Duration(seconds=1)), "typing_for"),
        (reaction(to=GROUP), "reaction.target.chat"),
        (reaction(to=OTHER_LID), "reaction.target.chat"),
        (reaction(to=OTHER, target=BY_ID), "reaction.target.request_id"),
        (reaction(to=GROUP, target=BY_ID), "reaction.target.chat"),
        (send(text=HELLO, reply_to=pb.MessageRef(chat=LID)), "reply_to"),
        (send(text=HELLO, reply_to=pb.MessageRef(request_id="r0", message_id="A")), "reply_to.message_id"),
        (send(text=HELLO, reply_to=pb.MessageRef(request_id="r0", from_me=True)), "reply_to.from_me"),
        (send(GROUP, text=HELLO, reply_to=pb.MessageRef(message_id="A")), "reply_to.sender"),
        (send(text=HELLO, reply_to=pb.MessageRef(message_id="A", sender=OTHER)), "reply_to.sender"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_its_field(request_: pb.SendRequest, field: str) -> None:
    assert not violations_of(request_), "what the schema refuses does not come here"
    with pytest.raises(InvalidArgument) as refused:
        new(request_, SENT)
    assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.parametrize(
    ("parse", "request_", "field"),
    [
        (sending.new_edit, pb.EditRequest(target=pb.MessageRef(message_id="A", chat=LID), text=HELLO), "from_me"),
        (
            sending.new_edit,
            pb.EditRequest(target=pb.MessageRef(message_id="A", chat=GROUP, sender=LID), text=HELLO),
            "from_me",
        ),
        (sending.new_edit, pb.EditRequest(target=pb.MessageRef(message_id="A", from_me=True), text=HELLO), "chat"),
        (sending.new_revoke, pb.RevokeRequest(target=pb.MessageRef(message_id="A", chat=LID)), "from_me"),
        (sending.new_revoke, pb.RevokeRequest(target=pb.MessageRef(message_id="A", chat=GROUP)), "sender"),
        (sending.new_pin, pb.PinInChatRequest(target=pb.MessageRef(message_id="A")), "chat"),
        (sending.new_revoke, pb.RevokeRequest(target=pb.MessageRef(request_id="edit")), "request_id"),
    ],
)
def test_a_target_that_cannot_be_is_refused_by_its_field(
    parse: Callable[[Any, Mapping[str, OutboundMessage]], NewMessage], request_: Any, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(request_, {"edit": replace(SENT, request_id="edit", kind=MessageKind.EDIT)})
    assert [violation.field for violation in refused.value.violations] == [f"target.{field}"]


def test_an_edit_is_checked_as_a_text() -> None:
    request = pb.EditRequest(target=OWN, text=pb.Text(body="x", mentions_everyone=True))
    with pytest.raises(InvalidArgument):
        sending.new_edit(request, {})
    request.target.chat = GROUP
    assert sending.new_edit(request, {}).to == GROUP


def test_another_members_message_can_be_revoked_in_a_group() -> None:
    target = pb.MessageRef(message_id="A", chat=GROUP, sender=OTHER_LID)
    made = sending.new_revoke(pb.RevokeRequest(target=target), {})
    assert content_of(made, pb.RevokeRequest).target == target


@pytest.mark.parametrize("emoji", ["", "👍", "❤️", "1️⃣", "👩‍👩‍👧‍👦", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇩🇪", "\u2139\ufe0f", "‼️", "Ⓜ️", "👍🏽"])
def test_every_emoji_is_a_reaction(emoji: str) -> None:
    assert content_of(new(reaction(emoji))).reaction.emoji == emoji


def test_a_reaction_may_name_the_chat_by_its_other_address() -> None:
    assert content_of(new(reaction(to=PERSON))).reaction.target == OWN
    assert content_of(new(reaction(to=PERSON, target=BY_ID), SENT)).reaction.target.chat == LID


@pytest.mark.parametrize(
    "request_",
    [
        send("status@broadcast", text=HELLO),
        send("120363000000000000@newsletter", text=HELLO),
        send(text=pb.Text(body="x", mentions=[GROUP])),
        send(text=pb.Text(body="x", mentions=["123456:7@lid"])),
        preview("a link with blanks"),
        poll("q", "a"),
        poll("q", "a", "a"),
        poll("q", *map(str, range(13))),
        poll("q\n", "a", "b"),
        poll("q", "a\x01", "b"),
        poll("q", "a", "b", most_choices=13),
        send(location=pb.Location(latitude=91)),
        send(location=pb.Location(longitude=float("nan"))),
        send(location=pb.Location(name="a\nb")),
        send(contacts=pb.ContactCards()),
        send(contacts=pb.ContactCards(cards=[pb.ContactCards.Card(name="A")])),
        send(contacts=pb.ContactCards(cards=[pb.ContactCards.Card(name="A\nEND:VCARD", phones=["4917612345678"])])),
        send(contacts=pb.ContactCards(cards=[pb.ContactCards.Card(name="A", phones=["0"])])),
        reaction("👍" * 17),
        send(text=HELLO, reply_to=pb.MessageRef(message_id="A\x07")),
        send(text=HELLO, reply_to=pb.MessageRef(message_id="A", chat="status@broadcast")),
        send(text=HELLO, expiration=Duration(seconds=1)),
        send(text=HELLO, typing_for=Duration(seconds=26)),
        send(text=HELLO, typing_for=Duration(seconds=-1)),
        pb.PinInChatRequest(session_id="a", request_id="r", target=OWN, duration=Duration(seconds=1)),
        pb.EditRequest(session_id="a", request_id="r", target=OWN),
        pb.RevokeRequest(session_id="a", request_id="r"),
        pb.MarkReadRequest(session_id="a", chat=LID),
        pb.MarkReadRequest(session_id="a", chat=LID, message_ids=["A B"]),
        pb.MarkReadRequest(session_id="a", chat=LID, message_ids=["A"] * 101),
    ],
)
def test_the_schema_refuses_what_no_session_can_send(request_: Any) -> None:
    assert violations_of(request_)


def test_messages_are_read_by_author() -> None:
    def made(**fields: str) -> calls_pb2.MarkRead:
        request = pb.MarkReadRequest(session_id="a", message_ids=["A"], is_played=True, **fields)
        return message_of(sending.mark_read(request), calls_pb2.MarkRead)

    assert made(chat=LID) == calls_pb2.MarkRead(chat=LID, sender=LID, message_ids=["A"], is_played=True)
    assert made(chat=LID, sender=PERSON).sender == LID
    assert made(chat=GROUP, sender=PERSON).sender == PERSON
    for wrong in ({"chat": GROUP}, {"chat": LID, "sender": OTHER_LID}):
        with pytest.raises(InvalidArgument) as refused:
            made(**wrong)
        assert [violation.field for violation in refused.value.violations] == ["sender"]
