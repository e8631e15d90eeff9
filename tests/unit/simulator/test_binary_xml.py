"""Stanzas survive the wire; rubbish does not get through."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.binary_xml import BinaryXmlError, Node, decode, encode, node
from simulator.jid import LID_SERVER, PN_SERVER, SERVER, Jid
from simulator.tokens import installed_tokens

_words = st.text(min_size=1, max_size=40)
_users = st.text("0123456789", min_size=1, max_size=15)
_jids = st.builds(Jid, _users, st.sampled_from([PN_SERVER, LID_SERVER]), st.integers(0, 250))
_attrs = st.dictionaries(_words, _words | _jids, max_size=5)
_leaves = st.builds(Node, _words, _attrs, st.none() | st.binary(max_size=300))
_nodes = st.recursive(_leaves, lambda inner: st.builds(Node, _words, _attrs, st.lists(inner, min_size=1, max_size=4)))


@given(_nodes)
def test_what_is_encoded_decodes(stanza: Node) -> None:
    assert decode(encode(stanza)) == stanza


@pytest.mark.parametrize("size", [0, 255, 256, 2**20 - 1, 2**20])
def test_content_of_any_length_decodes(size: int) -> None:
    stanza = node("enc", {}, bytes(size))
    assert decode(encode(stanza)) == stanza


def test_many_children_decode() -> None:
    stanza = node("list", {}, *(node("user", {"n": number}) for number in range(300)))
    assert decode(encode(stanza)) == stanza


@given(st.binary(max_size=200))
def test_rubbish_is_refused_or_decoded(data: bytes) -> None:
    with contextlib.suppress(BinaryXmlError):
        decode(data)


def test_a_stanza_that_is_cut_short_is_refused() -> None:
    data = encode(node("iq", {"from": SERVER, "id": "1"}, node("ping")))
    for length in range(len(data)):
        with pytest.raises(BinaryXmlError):
            decode(data[:length])


def test_a_bottomless_stanza_is_refused() -> None:
    with pytest.raises(BinaryXmlError, match="deeply"):
        decode(b"\xf8\x02\x01\xf8\x01" * 1000)


def test_tokens_and_packed_digits_are_read() -> None:
    tokens = installed_tokens()
    iq, kind = tokens.single.index("iq"), tokens.single.index("type")
    data = bytes([248, 5, iq, kind, 236, 1, tokens.single.index("id"), 255, 0x82, 0x12, 0x3F])
    assert decode(data) == Node("iq", {"type": tokens.double[0][1], "id": "123"})


def test_addresses_read_and_write_themselves() -> None:
    for text in ("491511:3@s.whatsapp.net", "12345@lid", "s.whatsapp.net"):
        assert str(Jid.parse(text)) == text
    with pytest.raises(ValueError, match="device"):
        Jid.parse("49:x@s.whatsapp.net")


def test_building_leaves_out_what_is_none() -> None:
    assert node("ack", {"id": 7, "type": None}).attrs == {"id": "7"}
