"""Signal's group cipher between simulated devices: in order, out of order, repeated, altered, with a new key."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.group_conversations import GroupConversations
from simulator.ratchet import SignalError
from simulator.schemas import Content, SenderKeyAnnouncement, SenderKeyMessage
from simulator.sender_keys import AnnouncedSenderKeys, OwnSenderKey

GROUP = "120363000000000001@g.us"


def reader_of(own: OwnSenderKey) -> AnnouncedSenderKeys:
    reader = AnnouncedSenderKeys()
    reader.learn(own.announcement())
    return reader


def test_one_ciphertext_serves_every_reader() -> None:
    own = OwnSenderKey()
    readers = [reader_of(own) for _ in range(3)]
    for number in range(3):
        message = own.encrypt(f"text {number}".encode())
        assert [reader.decrypt(message) for reader in readers] == [f"text {number}".encode()] * 3


def test_the_bytes_are_those_of_signal() -> None:
    own = OwnSenderKey()
    announcement, message = own.announcement(), own.encrypt(b"text")
    announced, body = SenderKeyAnnouncement.decode(announcement[1:]), SenderKeyMessage.decode(message[1:-64])
    assert (announcement[:1], message[:1]) == (b"\x33", b"\x33")
    assert (announced.iteration, body.iteration) == (0, 0)
    assert announced.id == body.id
    assert announced.chain_key is not None
    assert announced.signing_key is not None
    assert (len(announced.chain_key), len(announced.signing_key), announced.signing_key[:1]) == (32, 33, b"\x05")
    assert SenderKeyAnnouncement.decode(own.announcement()[1:]).iteration == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_any_order_of_arrival(count: int, chance: random.Random) -> None:
    own = OwnSenderKey()
    reader = reader_of(own)
    messages = [(number, own.encrypt(bytes([number]))) for number in range(count)]
    chance.shuffle(messages)
    for number, message in messages:
        assert reader.decrypt(message) == bytes([number])


def test_a_repeated_message_is_refused() -> None:
    own = OwnSenderKey()
    reader, message = reader_of(own), own.encrypt(b"once")
    reader.decrypt(message)
    with pytest.raises(SignalError, match="decrypted before"):
        reader.decrypt(message)
    assert reader.decrypt(own.encrypt(b"twice")) == b"twice"


def test_a_changed_bit_is_noticed_and_changes_nothing() -> None:
    writer: GroupConversations[str] = GroupConversations()
    reader: GroupConversations[str] = GroupConversations()
    reader.learn(GROUP, "alice", writer.announce(GROUP, "bob"))
    message = writer.encrypt(GROUP, Content(conversation="intact"))
    for position in range(len(message)):
        changed = bytearray(message)
        changed[position] ^= 0x10
        with pytest.raises(SignalError):
            reader.decrypt(GROUP, "alice", bytes(changed))
    assert reader.decrypt(GROUP, "alice", message).text == "intact"


def test_who_learns_the_key_late_reads_what_follows_only() -> None:
    own = OwnSenderKey()
    before = own.encrypt(b"before")
    reader = reader_of(own)
    assert reader.decrypt(own.encrypt(b"after")) == b"after"
    with pytest.raises(SignalError, match="decrypted before"):
        reader.decrypt(before)


def test_an_announcement_that_comes_again_takes_nothing_away() -> None:
    """Clients announce their key with each message."""
    own = OwnSenderKey()
    reader, first = reader_of(own), own.encrypt(b"first")
    reader.learn(own.announcement())
    assert reader.decrypt(own.encrypt(b"second")) == b"second"
    assert reader.decrypt(first) == b"first"


def test_an_older_key_stays_readable_beside_a_new_one() -> None:
    old, new = OwnSenderKey(), OwnSenderKey()
    reader = reader_of(old)
    reader.learn(new.announcement())
    assert reader.decrypt(new.encrypt(b"new")) == b"new"
    assert reader.decrypt(old.encrypt(b"old")) == b"old"


def test_a_message_too_far_ahead_is_refused() -> None:
    own = OwnSenderKey()
    reader = reader_of(own)
    far = [own.encrypt(b"") for _ in range(2_001)][-1]
    with pytest.raises(SignalError, match="too far ahead"):
        reader.decrypt(own.encrypt(b"further"))
    assert reader.decrypt(far) == b""


def test_a_damaged_key_reads_nothing_until_it_is_announced_again() -> None:
    own = OwnSenderKey()
    reader = reader_of(own)
    reader.damage()
    with pytest.raises(SignalError, match="verify"):
        reader.decrypt(own.encrypt(b"unread"))
    reader.learn(own.announcement())
    assert reader.decrypt(own.encrypt(b"read")) == b"read"


@given(st.binary(max_size=80))
def test_rubbish_is_no_announcement(data: bytes) -> None:
    with pytest.raises(SignalError):
        AnnouncedSenderKeys().learn(data)


def test_a_phone_announces_its_key_once_to_each_device_and_a_new_one_to_all() -> None:
    writer: GroupConversations[str] = GroupConversations()
    reader: GroupConversations[str] = GroupConversations()
    for text in ("first", "anew"):
        assert writer.without_key(GROUP, ["bob", "carol"]) == ["bob", "carol"]
        reader.learn(GROUP, "alice", writer.announce(GROUP, "bob"))
        assert writer.without_key(GROUP, ["bob", "carol"]) == ["carol"]
        assert reader.decrypt(GROUP, "alice", writer.encrypt(GROUP, Content(conversation=text))).text == text
        writer.begin_anew(GROUP)


def test_a_key_is_of_one_device_in_one_group() -> None:
    writer: GroupConversations[str] = GroupConversations()
    reader: GroupConversations[str] = GroupConversations()
    reader.learn(GROUP, "alice", writer.announce(GROUP, "bob"))
    message = writer.encrypt(GROUP, Content(conversation="text"))
    for group, peer in ((GROUP, "mallory"), ("1@g.us", "alice")):
        with pytest.raises(SignalError, match="no sender key"):
            reader.decrypt(group, peer, message)
    reader.forget("alice")
    with pytest.raises(SignalError, match="no sender key"):
        reader.decrypt(GROUP, "alice", message)
