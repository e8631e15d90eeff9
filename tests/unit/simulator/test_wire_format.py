"""The small protocol-buffer codec, held against the real one."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from simulator.schemas import ClientPayload, Content, DevicePairingData, DeviceSent, ExtendedText, SignalMessage
from simulator.wire_format import WireError, decode_varint, encode_varint


@given(st.integers(0, 2**64 - 1))
def test_integers_survive(value: int) -> None:
    data = encode_varint(value)
    assert decode_varint(data, 0) == (value, len(data))


@given(st.binary() | st.none(), st.integers(0, 2**32) | st.none(), st.binary(max_size=400) | st.none())
def test_messages_survive(key: bytes | None, counter: int | None, ciphertext: bytes | None) -> None:
    message = SignalMessage(key, counter, None, ciphertext)
    assert SignalMessage.decode(message.encode()) == message


def test_nested_messages_survive() -> None:
    content = Content(device_sent=DeviceSent("1@lid", Content(extended_text=ExtendedText("hallo"))))
    assert Content.decode(content.encode()) == content
    assert content.device_sent is not None and content.device_sent.message is not None
    assert content.device_sent.message.text == "hallo"


def test_the_real_codec_reads_the_same_fields() -> None:
    # A FileDescriptorProto has texts at 1 and 2, and nobody needs the client's generated modules for it.
    real = FileDescriptorProto.FromString(Content(conversation="hallo").encode())
    assert real.name == "hallo"
    written = FileDescriptorProto(name="welt", dependency=["a", "b"], public_dependency=[1]).SerializeToString()
    assert Content.decode(written).conversation == "welt", "unknown fields are skipped"


def test_unknown_fields_of_every_kind_are_skipped() -> None:
    unknown = b"\xa1\x06" + bytes(8) + b"\xa5\x06" + bytes(4) + b"\xa8\x06\x07" + b"\xaa\x06\x02xx"
    payload = ClientPayload(username=49151, device_pairing_data=DevicePairingData(key_type=b"\x05"))
    assert ClientPayload.decode(unknown + payload.encode() + unknown) == payload


@given(st.binary(max_size=100))
def test_rubbish_is_refused_or_decoded(data: bytes) -> None:
    with contextlib.suppress(WireError):
        ClientPayload.decode(data)


@pytest.mark.parametrize("data", [b"\x08", b"\x0a\x05ab", b"\x0b", b"\xff" * 12])
def test_broken_messages_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        Content.decode(data)
