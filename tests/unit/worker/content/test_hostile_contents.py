"""Whatever a stranger can make of a waE2E.Message is told, whole in its bytes, and raises nothing."""

import logging
import random
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToJson
from hypothesis import given, settings
from hypothesis import strategies as st
from neonize.proto.Neonize_pb2 import MessageInfo
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

from service.worker.inbound import messages
from service.worker.inbound.content.limits import BODY, TOGETHER
from tests.unit.worker.inbound import info
from tests.unit.worker.test_messages import varint, wire_field
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2, inbound_pb2

_DEPTH = 6
_VARINTS = {
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_ENUM,
}
_WORDS = [b"", b"a", b"\0", b"\xff\xfe", b"\xed\xa0\x80", "é👍".encode(), b"x" * 3000, b"1@s.whatsapp.net", b"\r\n" * 9]
_NUMBERS = [0, 1, 2, 3, 14, 999, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


class _Raises(logging.Handler):
    """A content that cannot be told with types is an error of ours, however little it costs."""

    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(record.getMessage()) from sys.exception()


@pytest.fixture(autouse=True, scope="module")
def _every_content_is_told_with_types() -> Iterator[None]:
    handler, logger = _Raises(logging.ERROR), logging.getLogger("service.worker.inbound.messages")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


def rubbish(of: Descriptor, chance: random.Random, depth: int = 0) -> bytes:
    """Bytes of a message of this form: real fields with unlikely values, and some that nobody knows."""
    out = b""
    for _ in range(chance.randint(0, 3 if depth else 2)):
        field = chance.choice(of.fields)
        for _ in range(chance.choice([1, 1, 1, 2, 40]) if field.is_repeated else 1):
            out += _field(field, chance, depth)
    if chance.random() < 0.1:
        out += wire_field(chance.choice([777, 5000]), b"new")
    return out


def _field(field: FieldDescriptor, chance: random.Random, depth: int) -> bytes:
    if field.type in _VARINTS:
        return varint(field.number << 3) + varint(chance.choice(_NUMBERS))
    if field.type in {FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_DOUBLE}:
        return varint(field.number << 3 | 1) + struct.pack(
            "<d", chance.choice([0.0, float("nan"), float("inf"), -1e300])
        )
    if field.type in {FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32, FieldDescriptor.TYPE_FLOAT}:
        return varint(field.number << 3 | 5) + struct.pack("<f", chance.choice([0.0, float("nan"), -1e30]))
    if field.message_type is None:
        return wire_field(field.number, chance.choice(_WORDS))
    inner = rubbish(field.message_type, chance, depth + 1) if depth < _DEPTH else b""
    return wire_field(field.number, inner)


def all_of(inbound: inbound_pb2.InboundMessage) -> list[frames_pb2.Frame]:
    """What is told of it, which every consumer must be able to take."""
    told = list(messages.frames(inbound))
    for frame in told:
        assert event_pb2.Event.FromString(frame.event.SerializeToString()) == frame.event or "nan" in str(frame.event)
        assert MessageToJson(frame.event)
        assert frame.event.ByteSize() < messages.RAW + TOGETHER + 8 * BODY
    return told


def raw_of(frames: list[frames_pb2.Frame]) -> bytes:
    first, *parts = frames
    return first.event.message_received.raw + b"".join(part.event.message_raw_part.raw for part in parts)


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False))
def test_rubbish_in_known_fields_is_told(chance: random.Random) -> None:
    data = rubbish(Message.DESCRIPTOR, chance)
    told = all_of(inbound_pb2.InboundMessage(info=info().SerializeToString(), message=data, raw=data))
    assert not told or told[0].event.HasField("message_unreadable") or raw_of(told) == data


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_told(data: bytes) -> None:
    told = all_of(inbound_pb2.InboundMessage(info=info().SerializeToString(), message=data, raw=data))
    assert not told or told[0].event.HasField("message_unreadable") or raw_of(told) == data


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_rubbish_about_a_message_does_not_keep_it(chance: random.Random) -> None:
    about = b"".join(rubbish(MessageInfo.DESCRIPTOR, chance) for _ in range(4)) + wire_field(7, b"")
    data = Message(conversation="hello").SerializeToString()
    (frame,) = all_of(inbound_pb2.InboundMessage(info=about, message=data, raw=data, newsletter=_edited(chance)))
    assert (frame.event.message_received.text, frame.event.message_received.raw) == ("hello", data)


def _edited(chance: random.Random) -> Any:
    return varint(1 << 3) + varint(chance.choice(_NUMBERS))
