"""What is told of an inbound message: who, where, when, its bytes, and whether it is told at all."""

import datetime
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from neonize.proto import Neonize_pb2 as neonize
from neonize.proto.waE2E import WAWebProtobufsE2E_pb2 as e2e
from neonize.proto.waVnameCert.WAWebProtobufsVnameCert_pb2 import VerifiedNameCertificate

from service.worker.addresses import from_text
from service.worker.inbound import messages
from service.worker.inbound.content.limits import BODY
from tests.unit.worker.inbound import CHAT, GROUP, ME, SENT, TEN_YEARS_AHEAD, event, info, nobody, source, told
from zap.v1 import content_pb2, event_pb2
from zap.worker.v1 import inbound_pb2

TYPES = e2e.ProtocolMessage


def text(body: str) -> e2e.Message:
    return e2e.Message(conversation=body)


def wrapped(name: str, content: e2e.Message) -> e2e.Message:
    return e2e.Message(**{name: e2e.FutureProofMessage(message=content)})


def test_a_message_is_told_with_people_instead_of_devices() -> None:
    (frame,) = messages.frames(event(text("hello")))
    assert frame.time.ToDatetime(tzinfo=datetime.UTC) == SENT
    assert frame.event.type == event_pb2.Event.TYPE_MESSAGE_RECEIVED
    raw = text("hello").SerializeToString()
    content = content_pb2.Content(
        kind=content_pb2.Content.KIND_TEXT, field="conversation", text=content_pb2.TextContent(body="hello")
    )
    assert frame.event.message_received == event_pb2.MessageReceived(
        message_id="3EB0",
        chat=CHAT,
        sender="111@lid",
        sender_alternative="49170@s.whatsapp.net",
        sender_device=2,
        push_name="Friend",
        text="hello",
        raw=raw,
        raw_size=len(raw),
        content=content,
        chat_kind=event_pb2.CHAT_KIND_PERSON,
        chat_alternative="49170@s.whatsapp.net",
        sent_time=frame.time,
        stanza_type="text",
    )


def test_the_form_of_our_own_reads_what_the_library_writes() -> None:
    theirs = {field.number: field for field in neonize.Message.DESCRIPTOR.fields}
    for field in inbound_pb2.InboundMessage.DESCRIPTOR.fields:
        other = theirs[field.number]
        of_same_wire = {field.type, other.type} <= {field.TYPE_BYTES, field.TYPE_MESSAGE, field.TYPE_STRING}
        assert field.type == other.type or of_same_wire, field.name


def test_what_the_library_wrote_of_a_message_comes_through() -> None:
    flags = ("IsViewOnceV2", "IsViewOnceV2Extension", "IsDocumentWithCaption", "IsLottieSticker")
    whole = neonize.Message(
        Info=info(),
        Message=text("inner"),
        IsEphemeral=True,
        IsViewOnce=True,
        IsEdit=True,
        UnavailableRequestID="REQUEST",
        RetryCount=3,
        NewsLetterMeta=neonize.NewsLetterMessageMeta(EditTS=1_700_000_000, OriginalTS=0),
        Raw=text("inner"),
        **dict.fromkeys(flags, False),
    )
    (frame,) = messages.frames(inbound_pb2.InboundMessage.FromString(whole.SerializeToString()))
    received = frame.event.message_received
    assert (received.is_disappearing, received.is_view_once, received.is_edit) == (True, True, True)
    assert (received.unavailable_request_id, received.retry_count) == ("REQUEST", 3)
    assert received.newsletter_edit_time.seconds == 1_700_000_000
    assert received.raw == text("inner").SerializeToString()


@pytest.mark.parametrize(
    ("chat", "kind", "is_group"),
    [
        ("49170@s.whatsapp.net", event_pb2.CHAT_KIND_PERSON, False),
        ("111@lid", event_pb2.CHAT_KIND_PERSON, False),
        (GROUP, event_pb2.CHAT_KIND_GROUP, True),
        ("1700000000@broadcast", event_pb2.CHAT_KIND_BROADCAST_LIST, False),
        ("status@broadcast", event_pb2.CHAT_KIND_STATUS, False),
        ("120363@newsletter", event_pb2.CHAT_KIND_NEWSLETTER, False),
        ("867051314767696@bot", event_pb2.CHAT_KIND_BOT, False),
        ("1@somewhere.new", event_pb2.CHAT_KIND_UNSPECIFIED, False),
    ],
)
def test_a_chat_is_named_for_what_it_is(chat: str, kind: "event_pb2.ChatKind.ValueType", is_group: bool) -> None:
    received = told(text("x"), info(source(Chat=from_text(chat), IsGroup=True)))
    assert (received.chat_kind, received.is_group) == (kind, is_group)


@pytest.mark.parametrize(
    ("changes", "alternative"),
    [
        ({"IsFromMe": True, "RecipientAlt": from_text("222@lid")}, "222@lid"),
        ({}, "49170@s.whatsapp.net"),
        ({"Chat": from_text(GROUP)}, ""),
    ],
)
def test_the_chat_with_a_person_has_that_person_s_other_address(changes: dict[str, Any], alternative: str) -> None:
    assert told(text("x"), info(source(**changes))).chat_alternative == alternative


def test_what_whatsapp_says_of_a_message_is_told() -> None:
    details = VerifiedNameCertificate.Details(verifiedName="Shop")
    about = info(
        source(
            AddressingMode=neonize.LID,
            BroadcastListOwner=from_text(ME),
            BroadcastRecipients=[neonize.BroadcastRecipient(LID=from_text("5@lid"), PN=from_text("6@s.whatsapp.net"))],
        ),
        ServerID=7,
        Multicast=True,
        MediaType="image",
        Edit="1",
        VerifiedName=neonize.VerifiedName(Details=details),
    )
    received = told(text("x"), about)
    assert received.addressing_mode == event_pb2.ADDRESSING_MODE_LID
    assert (received.verified_name, received.newsletter_server_id) == ("Shop", 7)
    assert (received.is_multicast, received.media_type, received.edit_attribute) == (True, "image", "1")
    assert received.broadcast_owner == ME
    assert received.broadcast_recipients[0] == event_pb2.BroadcastRecipient(
        lid="5@lid", phone_number="6@s.whatsapp.net"
    )


def test_an_addressing_mode_that_the_library_did_not_understand_is_not_told() -> None:
    about = info().SerializeToString()
    strange = b"\x0a\x02\x28\x00"  # MessageSource.AddressingMode = 0, which is none of its values
    inbound = inbound_pb2.InboundMessage(info=about + strange, message=text("x").SerializeToString())
    (frame,) = messages.frames(inbound)
    assert frame.event.message_received.addressing_mode == event_pb2.ADDRESSING_MODE_UNSPECIFIED


@pytest.mark.parametrize("milliseconds", [0, -1, 2**62, -(2**63), 253_402_300_800_000, TEN_YEARS_AHEAD * 1000])
def test_a_time_that_makes_no_sense_is_none(milliseconds: int) -> None:
    (frame,) = messages.frames(event(text("x"), info(Timestamp=milliseconds)))
    assert not frame.HasField("time")
    assert not frame.event.message_received.HasField("sent_time")


# --- what is told, and what is not

KEYS = e2e.Message(senderKeyDistributionMessage=e2e.SenderKeyDistributionMessage(groupID="g"))


def of_protocol(kind: "e2e.ProtocolMessage.Type.ValueType") -> e2e.Message:
    return e2e.Message(protocolMessage=TYPES(type=kind))


@pytest.mark.parametrize(
    "content",
    [
        KEYS,
        e2e.Message(messageContextInfo=e2e.MessageContextInfo(messageSecret=b"s")),
        e2e.Message(),
        of_protocol(TYPES.APP_STATE_SYNC_KEY_SHARE),
        of_protocol(TYPES.HISTORY_SYNC_NOTIFICATION),
        wrapped("ephemeralMessage", KEYS),
    ],
)
def test_keys_and_agreements_between_devices_are_not_messages(content: e2e.Message) -> None:
    assert not list(messages.frames(event(content)))


def test_a_text_that_came_with_keys_is_a_message() -> None:
    both = e2e.Message()
    both.CopyFrom(KEYS)
    both.conversation = "hello"
    received = told(both)
    assert (received.text, list(received.content.other_fields)) == ("hello", [])


@pytest.mark.parametrize("kind", [TYPES.REVOKE, TYPES.MESSAGE_EDIT, TYPES.EPHEMERAL_SETTING])
def test_what_the_protocol_says_about_messages_is_told(kind: "e2e.ProtocolMessage.Type.ValueType") -> None:
    assert told(of_protocol(kind)).content.field == f"protocolMessage.{TYPES.Type.Name(kind)}"


def test_what_else_the_protocol_says_is_told_of_others_and_not_between_own_devices() -> None:
    told(of_protocol(TYPES.SHARE_PHONE_NUMBER))
    assert not list(messages.frames(event(of_protocol(TYPES.SHARE_PHONE_NUMBER), info(source(IsFromMe=True)))))


def test_a_protocol_message_of_a_kind_that_is_new_is_no_revoke() -> None:
    received = told(wire_field(12, b"\x10\xe7\x07"))  # ProtocolMessage.type = 999
    assert (received.content.kind, received.content.field) == (content_pb2.Content.KIND_UNSPECIFIED, "protocolMessage")


def test_what_the_own_devices_tell_each_other_is_not() -> None:
    about = info(source(IsFromMe=True), Category="peer")
    assert not list(messages.frames(event(text("a key"), about)))
    show = neonize.UndecryptableMessage.DECRYPT_FAIL_SHOW
    lost = neonize.UndecryptableMessage(Info=about, IsUnavailable=False, DecryptFailMode=show)
    assert messages.unreadable(lost) is None


def test_nobody_else_hides_a_message_by_calling_it_one_between_own_devices() -> None:
    assert told(text("hello"), info(Category="peer")).text == "hello"


def test_nobody_hides_a_message_behind_a_placeholder() -> None:
    both = e2e.Message(conversation="hello", placeholderMessage=e2e.PlaceholderMessage())
    assert told(both).text == "hello"


def test_a_content_that_the_library_does_not_know_is_told_by_its_number() -> None:
    a_later_field = b"\xa2\x3e\x03new"  # field 996
    received = told(a_later_field)
    assert (received.content.field, received.raw) == ("996", a_later_field)
    assert received.content.kind == content_pb2.Content.KIND_UNSPECIFIED


def test_many_contents_that_the_library_does_not_know_are_told_without_their_numbers() -> None:
    assert told(wire_field(996, b"") * 10_000).content == content_pb2.Content()


def test_a_content_without_a_type_of_ours_is_told_by_its_name() -> None:
    received = told(e2e.Message(sendPaymentMessage=e2e.SendPaymentMessage(transactionData="1")))
    assert received.content == content_pb2.Content(field="sendPaymentMessage")


# --- what must not break it


def nested(depth: int, wrapping: int = 40) -> bytes:
    """Wrapped so deep, if it is deep, that protobuf's parser here refuses it, and Go's does not."""
    content: bytes = text("deep").SerializeToString()
    for _ in range(depth):
        content = wire_field(wrapping, wire_field(1, content))
    return content


def wire_field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_a_message_that_cannot_be_read_here_is_told_by_its_bytes() -> None:
    raw = nested(60)
    # What the library's own class makes of it; if that changes, our form of it may go.
    with pytest.raises(DecodeError):
        neonize.Message.FromString(event(raw).SerializeToString())
    received = told(raw)
    assert (received.raw, received.message_id) == (raw, "3EB0")
    assert received.HasField("content")
    assert received.content == content_pb2.Content()


def test_a_wrapping_is_undone_to_a_depth_that_nobody_needs() -> None:
    assert told(nested(16)).text == "deep"
    received = told(nested(17))
    assert (received.text, received.content.field) == ("", "ephemeralMessage")


@pytest.mark.parametrize("body", [b"\xff\xfe", b"ab\xed\xa0\x80", b"\xc3"])
def test_a_text_that_is_no_text_is_told_with_marks_in_it(body: bytes) -> None:
    raw = wire_field(1, body)
    received = told(raw)
    assert received.text == body.decode(errors="replace")
    assert received.raw == raw


def test_names_and_ids_that_are_no_text_do_not_keep_a_message() -> None:
    strange = info().SerializeToString() + wire_field(5, b"\xff") + wire_field(2, b"\xfe")
    (frame,) = messages.frames(inbound_pb2.InboundMessage(info=strange, message=text("x").SerializeToString()))
    received = frame.event.message_received
    assert (received.push_name, received.message_id) == ("\ufffd", "\ufffd")


def test_a_text_beyond_the_bound_is_cut_and_its_bytes_are_not() -> None:
    content = text("ä" * (BODY + 1))
    received = told(content)
    assert received.text == received.content.text.body == "ä" * BODY
    assert received.is_truncated
    assert received.raw == content.SerializeToString()


def test_the_bytes_of_a_huge_message_are_told_in_parts() -> None:
    content = text("x" * (2 * messages.RAW + 10))
    raw = content.SerializeToString()
    first, *parts = messages.frames(event(content))
    received = first.event.message_received
    assert (len(received.raw), received.raw_size) == (messages.RAW, len(raw))
    assert all(part.event.type == event_pb2.Event.TYPE_MESSAGE_RAW_PART for part in parts)
    told_in_parts = [part.event.message_raw_part for part in parts]
    assert [part.offset for part in told_in_parts] == [messages.RAW, 2 * messages.RAW]
    assert received.raw + b"".join(part.raw for part in told_in_parts) == raw
    assert {(part.message_id, part.chat, part.sender) for part in told_in_parts} == {
        (received.message_id, received.chat, received.sender)
    }


# --- messages that cannot be read


@pytest.mark.parametrize(
    ("is_unavailable", "reason"),
    [
        (True, event_pb2.MessageUnreadable.REASON_UNAVAILABLE),
        (False, event_pb2.MessageUnreadable.REASON_UNDECRYPTABLE),
    ],
)
def test_a_message_that_cannot_be_read_is_told(
    is_unavailable: bool, reason: "event_pb2.MessageUnreadable.Reason.ValueType"
) -> None:
    show = neonize.UndecryptableMessage.DECRYPT_FAIL_SHOW
    frame = messages.unreadable(
        neonize.UndecryptableMessage(Info=info(), IsUnavailable=is_unavailable, DecryptFailMode=show)
    )
    assert frame is not None
    assert frame.event == event_pb2.Event(
        type=event_pb2.Event.TYPE_MESSAGE_UNREADABLE,
        message_unreadable=event_pb2.MessageUnreadable(
            message_id="3EB0",
            chat=CHAT,
            sender="111@lid",
            sender_alternative="49170@s.whatsapp.net",
            push_name="Friend",
            chat_kind=event_pb2.CHAT_KIND_PERSON,
            sent_time=frame.time,
            reason=reason,
            is_retry_requested=True,
        ),
    )


def test_a_placeholder_says_that_only_the_phone_shows_it() -> None:
    (frame,) = messages.frames(event(e2e.Message(placeholderMessage=e2e.PlaceholderMessage())))
    assert frame.event.message_unreadable.reason == event_pb2.MessageUnreadable.REASON_PHONE_ONLY
    assert not frame.event.message_unreadable.is_retry_requested


def test_nobody_s_address_is_empty() -> None:
    received = told(text("x"), info(source(SenderAlt=nobody())))
    assert received.sender_alternative == received.broadcast_owner == ""
