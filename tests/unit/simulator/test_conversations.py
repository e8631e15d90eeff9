"""Signal between two phones: in order, out of order, lost, repeated, begun by both at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.conversations import Conversations
from simulator.padding import pad, unpad
from simulator.prekeys import KeyRing, PreKeyBundle, Shelf
from simulator.ratchet import SignalError
from simulator.schemas import Content

Encrypted = tuple[str, bytes]


class Person:
    """One end of a conversation."""

    def __init__(self) -> None:
        self.keys = KeyRing()
        self.friend: Person
        self.conversations: Conversations[str] = Conversations(self.keys, lambda _peer: self.friend.keys.bundle())

    def write(self, text: str) -> Encrypted:
        encrypted = self.conversations.encrypt("friend", Content(conversation=text))
        assert encrypted is not None
        return encrypted

    def read(self, message: Encrypted) -> str | None:
        return self.conversations.decrypt("friend", *message).text


def friends() -> tuple[Person, Person]:
    alice, bob = Person(), Person()
    alice.friend, bob.friend = bob, alice
    return alice, bob


def test_both_directions() -> None:
    alice, bob = friends()
    for number in range(5):
        assert bob.read(alice.write(f"a{number}")) == f"a{number}"
        assert alice.read(bob.write(f"b{number}")) == f"b{number}"


def test_introductions_end_with_the_first_answer() -> None:
    alice, bob = friends()
    kinds = []
    for _ in range(2):
        message = alice.write("hello")
        kinds.append(message[0])
        bob.read(message)
    alice.read(bob.write("hello yourself"))
    kinds.append(alice.write("now we know each other")[0])
    assert kinds == ["pkmsg", "pkmsg", "msg"]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_order_of_arrival(data: st.DataObject) -> None:
    alice, bob = friends()
    bob.read(alice.write("introduction"))
    alice.read(bob.write("answer"))
    on_the_way: list[tuple[Person, str, Encrypted]] = []
    for number in range(data.draw(st.integers(1, 12))):
        writer, reader = (alice, bob) if data.draw(st.booleans()) else (bob, alice)
        on_the_way.append((reader, f"text {number}", writer.write(f"text {number}")))
        if data.draw(st.booleans()):
            reader, text, message = on_the_way.pop(data.draw(st.integers(0, len(on_the_way) - 1)))
            assert reader.read(message) == text
    for reader, text, message in data.draw(st.permutations(on_the_way)):
        assert reader.read(message) == text


def test_a_repeated_message_is_refused() -> None:
    alice, bob = friends()
    message = alice.write("once")
    bob.read(message)
    with pytest.raises(SignalError):
        bob.read(message)
    assert bob.read(alice.write("twice")) == "twice"


def test_both_begin_at_once() -> None:
    alice, bob = friends()
    from_alice, from_bob = alice.write("me first"), bob.write("no, me")
    assert bob.read(from_alice) == "me first"
    assert alice.read(from_bob) == "no, me"
    for number in range(3):
        assert bob.read(alice.write(f"a{number}")) == f"a{number}"
        assert alice.read(bob.write(f"b{number}")) == f"b{number}"


def test_beginning_anew_after_the_other_side_forgot() -> None:
    alice, bob = friends()
    bob.read(alice.write("introduction"))
    alice.read(bob.write("answer"))
    bob.conversations.forget("friend")
    with pytest.raises(SignalError, match="no session"):
        bob.read(alice.write("lost"))
    assert alice.conversations.begin_anew("friend")
    assert bob.read(alice.write("found")) == "found"


def test_a_damaged_session_reads_nothing_until_the_other_side_begins_anew() -> None:
    alice, bob = friends()
    bob.read(alice.write("introduction"))
    alice.read(bob.write("answer"))
    bob.conversations.damage("friend")
    for _ in range(2):
        with pytest.raises(SignalError, match="does not match"):
            bob.read(alice.write("lost"))
        assert alice.read(bob.write("you still read me?")) == "you still read me?"
    assert alice.conversations.begin_anew("friend", bob.keys.bundle())
    assert bob.read(alice.write("found")) == "found"


def test_an_introduction_whose_one_time_key_is_gone_begins_nothing() -> None:
    alice, bob = friends()
    kind, message = alice.write("introduction")
    bob.conversations.use_up(message)
    with pytest.raises(SignalError, match="used before"):
        bob.read((kind, message))


def test_a_changed_bit_is_noticed_and_changes_nothing() -> None:
    alice, bob = friends()
    bob.read(alice.write("introduction"))
    alice.read(bob.write("answer"))
    kind, message = alice.write("intact")
    for position in range(1, len(message)):
        changed = bytearray(message)
        changed[position] ^= 0x10
        with pytest.raises(SignalError):
            bob.read((kind, bytes(changed)))
    assert bob.read((kind, message)) == "intact"


def test_a_one_time_key_is_given_out_once() -> None:
    ring = KeyRing()
    made = ring.bundle()
    assert made.one_time is not None
    shelf = Shelf(made.registration_id, made.identity, made.signed)
    shelf.one_time[made.one_time.id] = made.one_time
    bundles: list[PreKeyBundle] = [shelf.bundle(), shelf.bundle()]
    assert [bundle.one_time for bundle in bundles] == [made.one_time, None]


def test_without_prekeys_there_is_nothing_to_begin_with() -> None:
    nobody: Conversations[str] = Conversations(KeyRing(), lambda _peer: None)
    assert nobody.encrypt("friend", Content(conversation="hello?")) is None


@given(st.binary(max_size=100))
def test_padding_hides_and_comes_off(data: bytes) -> None:
    padded = pad(data)
    assert 1 <= len(padded) - len(data) <= 15
    assert unpad(padded) == data
