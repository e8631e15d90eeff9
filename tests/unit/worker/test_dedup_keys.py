"""Two events of one origin are one event: what is told apart, and what is not."""

from typing import Any

import pytest
from neonize.proto import Neonize_pb2 as neonize
from neonize.proto.waE2E import WAWebProtobufsE2E_pb2 as e2e

from service.worker.addresses import from_text
from service.worker.inbound import dedup_keys, messages, translate
from tests.unit.worker.inbound import SENT, event, info, nobody, source
from zap.worker.v1 import inbound_pb2

HOUR = 3_600_000
"""Milliseconds."""
GROUP = from_text("120363000000000001@g.us")


def text(body: str) -> e2e.Message:
    return e2e.Message(conversation=body)


def told_of(content: e2e.Message, **changes: Any) -> inbound_pb2.InboundMessage:
    """A message from this source, or with this said of it."""
    of_source = {name: value for name, value in changes.items() if name in source().DESCRIPTOR.fields_by_name}
    rest = {name: value for name, value in changes.items() if name not in of_source}
    return event(content, info(source(**of_source), **rest))


def origin_of(message: inbound_pb2.InboundMessage) -> bytes:
    (frame,) = messages.frames(message)
    return frame.origin


def receipt(
    kind: "neonize.Receipt.ReceiptType.ValueType", *message_ids: str, seconds: int = 1_700_000_000, **of_source: Any
) -> bytes:
    told = neonize.Receipt(MessageSource=source(**of_source), MessageIDs=message_ids, Timestamp=seconds, Type=kind)
    (frame,) = translate.receipts(told, lid_of)
    assert frame is not None
    return frame.origin


def test_an_origin_is_sixteen_bytes_that_begin_with_the_hour() -> None:
    origin = origin_of(event(text("hello")))
    assert len(origin) == 16
    assert int.from_bytes(origin[:4]) == int(SENT.timestamp()) // 3600


def test_a_repetition_has_the_same_origin_whatever_else_changed_about_it() -> None:
    again = told_of(text("hello"), SenderAlt=from_text("49171@s.whatsapp.net"), Pushname="New name")
    again.retry_count = 1
    assert origin_of(again) == origin_of(event(text("hello")))
    with_keys = text("hello")
    with_keys.senderKeyDistributionMessage.groupID = "group"
    with_keys.messageContextInfo.messageSecret = b"secret"
    assert origin_of(event(with_keys)) == origin_of(event(text("hello")))


def test_a_sender_who_is_asked_again_within_the_hour_has_the_same_origin() -> None:
    begin = int(SENT.timestamp()) * 1000 // HOUR * HOUR
    first, last, next_hour = (
        origin_of(told_of(text("hello"), Timestamp=begin + later)) for later in (0, HOUR - 1, HOUR)
    )
    assert first == last != next_hour


@pytest.mark.parametrize(
    "other",
    [
        told_of(text("hello"), ID="3EB1"),
        told_of(text("hello"), Chat=GROUP),
        told_of(text("hello"), Sender=from_text("112@lid")),
        told_of(text("hello"), Sender=from_text("111@s.whatsapp.net")),
        event(e2e.Message(imageMessage=e2e.ImageMessage(caption="hello"))),
        event(e2e.Message(conversation="hello", imageMessage=e2e.ImageMessage())),
    ],
    ids=["id", "chat", "sender", "server", "content", "more content"],
)
def test_another_message_has_another_origin(other: Any) -> None:
    assert origin_of(other) != origin_of(event(text("hello")))


NUMBER, LID = "49171:3@s.whatsapp.net", "222:3@lid"
MINE, MY_LID = "49151@s.whatsapp.net", "111@lid"


def addressed(sender: str, other: str = "", chat: str = "", chat_s_other: str = "") -> dict[str, Any]:
    """What a stanza says of who wrote where: a chat with the sender unless one is given."""
    person = sender.replace(":3", "")
    about = {"Sender": from_text(sender), "Chat": from_text(chat or person), "IsFromMe": bool(chat_s_other)}
    alternatives = {"SenderAlt": other, "RecipientAlt": chat_s_other}
    return about | {name: from_text(text) if text else nobody() for name, text in alternatives.items()}


def lid_of(number: neonize.JID) -> neonize.JID:
    """The library's map of numbers and LIDs."""
    user = {"49171": "222", "49151": "111"}.get(number.User)
    return from_text(f"{user}:{number.Device}@lid") if user else neonize.JID()


ONE_MESSAGE_TWICE = {
    "in a chat": (addressed(LID, NUMBER), addressed(NUMBER, LID)),
    "by its number alone": (addressed(LID), addressed(NUMBER)),
    "in a group": (addressed(LID, NUMBER, "1-2@g.us"), addressed(NUMBER, "", "1-2@g.us")),
    "of the owner": (
        addressed(MY_LID, "", "222@lid", "49171@s.whatsapp.net"),
        addressed(MINE, "", "49171@s.whatsapp.net", "222@lid"),
    ),
}


@pytest.mark.parametrize(("by_lid", "by_number"), ONE_MESSAGE_TWICE.values(), ids=ONE_MESSAGE_TWICE)
def test_what_comes_by_lid_and_by_number_has_one_origin(by_lid: dict[str, Any], by_number: dict[str, Any]) -> None:
    ways = (by_lid, by_number)
    read = [frame.origin for way in ways for frame in messages.frames(told_of(text("hello"), **way), lid_of)]
    assert read[0] == read[1]
    lost = [unreadable_origin(info(source(**way))) for way in ways]
    assert lost[0] == lost[1] != read[0]
    receipts = [receipt(neonize.Receipt.READ, "A", **way) for way in ways]
    assert receipts[0] == receipts[1]


def unreadable_origin(about: neonize.MessageInfo) -> bytes:
    show = neonize.UndecryptableMessage.DECRYPT_FAIL_SHOW
    lost = neonize.UndecryptableMessage(Info=about, IsUnavailable=False, DecryptFailMode=show)
    frame = messages.unreadable(lost, lid_of)
    assert frame is not None
    return frame.origin


def test_people_whose_lid_is_not_known_are_told_apart_by_their_numbers() -> None:
    numbers = [f"4917{digit}@s.whatsapp.net" for digit in (2, 3)]
    assert len({origin_of(told_of(text("hello"), **addressed(number))) for number in numbers}) == 2


def test_a_lid_that_only_the_library_knows_is_told() -> None:
    (frame,) = messages.frames(told_of(text("hello"), **addressed(NUMBER)), lid_of)
    received = frame.event.message_received
    assert (received.sender, received.sender_alternative) == ("49171@s.whatsapp.net", "222@lid")
    assert (received.chat, received.chat_alternative) == ("49171@s.whatsapp.net", "222@lid")


def test_words_do_not_run_into_each_other() -> None:
    one = told_of(text("hello"), Sender=from_text("1@lid"), ID="12")
    other = told_of(text("hello"), Sender=from_text("1@lid1"), ID="2")
    assert origin_of(one) != origin_of(other)


def test_the_device_of_the_sender_is_no_part_of_a_message_s_origin() -> None:
    assert origin_of(told_of(text("hello"), Sender=from_text("111:9@lid"))) == origin_of(event(text("hello")))


@pytest.mark.parametrize("milliseconds", [0, -1, -(2**63), 2**63 - 1])
def test_an_absurd_time_does_no_harm(milliseconds: int) -> None:
    assert len(dedup_keys.of_message(info(Timestamp=milliseconds), ())) == 16


def test_receipts_are_one_if_one_device_tells_the_same_of_the_same_at_the_same_second() -> None:
    delivered, read = neonize.Receipt.DELIVERED, neonize.Receipt.READ
    origin = receipt(delivered, "A", "B")
    assert origin == receipt(delivered, "A", "B")
    others = [receipt(read, "A", "B"), receipt(delivered, "A"), receipt(delivered, "B", "A")]
    others.append(receipt(delivered, "A", "B", seconds=1_700_000_001))
    assert len({origin, *others}) == 5


def test_the_edit_of_a_channel_s_message_is_another_one_though_it_has_the_same_id() -> None:
    first, edited = told_of(text("hello")), told_of(text("hello"))
    edited.newsletter = neonize.NewsLetterMessageMeta(EditTS=1_700_000_000, OriginalTS=0).SerializeToString()
    assert origin_of(edited) != origin_of(first) != origin_of(told_of(text("hello"), Edit="1"))


def test_an_edit_that_the_phone_gives_is_another_one_though_it_has_the_id_of_what_it_edits() -> None:
    first, edited = told_of(text("hello")), told_of(text("hello"))
    edited.is_edit = True
    assert origin_of(edited) != origin_of(first)


def test_each_part_of_a_huge_message_has_an_origin_of_its_own() -> None:
    frames = list(messages.frames(event(text("x" * 3 * messages.RAW))))
    assert len({frame.origin for frame in frames}) == len(frames) == 4


def test_that_a_message_could_not_be_read_does_not_keep_it_out_when_it_can() -> None:
    show = neonize.UndecryptableMessage.DECRYPT_FAIL_SHOW
    frames = [
        messages.unreadable(neonize.UndecryptableMessage(Info=info(), IsUnavailable=away, DecryptFailMode=show))
        for away in (False, False, True)
    ]
    unreadable = [frame.origin for frame in frames if frame is not None]
    assert unreadable[0] == unreadable[1] != unreadable[2]
    assert origin_of(event(text("hello"))) not in unreadable


def test_ids_that_are_no_text_have_an_origin() -> None:
    receipt_of = neonize.Receipt(MessageSource=source(), Timestamp=1, Type=neonize.Receipt.READ).SerializeToString()
    told = neonize.Receipt.FromString(receipt_of + b"\x12\x02\xff\xfe")
    (frame,) = translate.receipts(told)
    assert frame is not None
    assert len(frame.origin) == 16
