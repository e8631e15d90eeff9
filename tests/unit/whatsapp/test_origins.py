"""Two events of one origin are one event: what is told apart, and what is not."""

from typing import Any

import pytest
from neonize.proto import Neonize_pb2 as neonize
from neonize.proto.waE2E import WAWebProtobufsE2E_pb2 as e2e

from service.whatsapp import origins, translate
from service.whatsapp.addresses import from_text
from tests.unit.whatsapp.test_translate import SENT, event, source, text

HOUR = 3_600_000
"""Milliseconds."""
GROUP = from_text("120363000000000001@g.us")


def origin_of(message: Any) -> bytes:
    frame = translate.message(message)
    assert frame is not None
    return frame.origin


def changed(message: Any, **changes: Any) -> Any:
    for name, value in changes.items():
        setattr(message.Info, name, value)
    return message


def receipt(kind: "neonize.Receipt.ReceiptType.ValueType", *message_ids: str, seconds: int = 1_700_000_000) -> bytes:
    told = neonize.Receipt(MessageSource=source(), MessageIDs=message_ids, Timestamp=seconds, Type=kind)
    frame = translate.receipt(told)
    assert frame is not None
    return frame.origin


def test_an_origin_is_sixteen_bytes_that_begin_with_the_hour() -> None:
    origin = origin_of(event(text("hello")))
    assert len(origin) == 16
    assert int.from_bytes(origin[:4]) == int(SENT.timestamp()) // 3600


def test_a_repetition_has_the_same_origin_whatever_else_changed_about_it() -> None:
    again = changed(event(text("hello"), SenderAlt=from_text("49171@s.whatsapp.net")), Pushname="New name")
    again.RetryCount = 1
    assert origin_of(again) == origin_of(event(text("hello")))
    with_keys = text("hello")
    with_keys.senderKeyDistributionMessage.groupID = "group"
    with_keys.messageContextInfo.messageSecret = b"secret"
    assert origin_of(event(with_keys)) == origin_of(event(text("hello")))


def test_a_sender_who_is_asked_again_within_the_hour_has_the_same_origin() -> None:
    begin = int(SENT.timestamp()) * 1000 // HOUR * HOUR
    first, last, next_hour = (
        origin_of(changed(event(text("hello")), Timestamp=begin + later)) for later in (0, HOUR - 1, HOUR)
    )
    assert first == last != next_hour


@pytest.mark.parametrize(
    "other",
    [
        changed(event(text("hello")), ID="3EB1"),
        event(text("hello"), Chat=GROUP),
        event(text("hello"), Sender=from_text("112@lid")),
        event(text("hello"), Sender=from_text("111@s.whatsapp.net")),
        event(e2e.Message(imageMessage=e2e.ImageMessage(caption="hello"))),
        event(e2e.Message(conversation="hello", imageMessage=e2e.ImageMessage())),
    ],
    ids=["id", "chat", "sender", "server", "content", "more content"],
)
def test_another_message_has_another_origin(other: Any) -> None:
    assert origin_of(other) != origin_of(event(text("hello")))


def test_words_do_not_run_into_each_other() -> None:
    one = changed(event(text("hello"), Sender=from_text("1@lid")), ID="12")
    other = changed(event(text("hello"), Sender=from_text("1@lid1")), ID="2")
    assert origin_of(one) != origin_of(other)


def test_the_device_of_the_sender_is_no_part_of_a_message_s_origin() -> None:
    assert origin_of(event(text("hello"), Sender=from_text("111:9@lid"))) == origin_of(event(text("hello")))


@pytest.mark.parametrize("milliseconds", [0, -1, -(2**63), 2**63 - 1])
def test_an_absurd_time_does_no_harm(milliseconds: int) -> None:
    source_of = event(text("hello")).Info.MessageSource
    message = neonize.Message(Info=neonize.MessageInfo(MessageSource=source_of, ID="1", Timestamp=milliseconds))
    assert len(origins.of_message(message, ())) == 16


def test_receipts_are_one_if_one_device_tells_the_same_of_the_same_at_the_same_second() -> None:
    delivered, read = neonize.Receipt.DELIVERED, neonize.Receipt.READ
    origin = receipt(delivered, "A", "B")
    assert origin == receipt(delivered, "A", "B")
    others = [receipt(read, "A", "B"), receipt(delivered, "A"), receipt(delivered, "B", "A")]
    others.append(receipt(delivered, "A", "B", seconds=1_700_000_001))
    assert len({origin, *others}) == 5


def test_what_is_no_event_has_no_origin() -> None:
    assert (
        translate.message(event(e2e.Message(senderKeyDistributionMessage=e2e.SenderKeyDistributionMessage()))) is None
    )
