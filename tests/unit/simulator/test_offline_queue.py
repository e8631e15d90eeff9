"""Stanzas wait, in order, until they are confirmed."""

from __future__ import annotations

import pytest

from tests.simulator.binary_xml import node
from tests.simulator.offline_queue import OfflineQueue


def test_order_is_kept_and_confirmed_stanzas_go() -> None:
    queue = OfflineQueue()
    for number in range(3):
        queue.add(node("message", {"id": number, "type": "text"}))
    assert queue.confirm_message("1")
    assert [stanza.text("id") for stanza in queue] == ["0", "2"]
    assert not queue.confirm_message("1"), "a second receipt confirms nothing"


def test_two_receipts_for_one_message_are_two_stanzas() -> None:
    queue = OfflineQueue()
    queue.add(node("receipt", {"id": "A"}))
    queue.add(node("receipt", {"id": "A", "type": "read"}))
    assert (len(queue), queue.count("receipt"), queue.count("message")) == (2, 2, 0)
    assert queue.confirm_ack(node("ack", {"class": "receipt", "id": "A", "type": "read"}))
    assert queue.confirm_ack(node("ack", {"class": "receipt", "id": "A"}))
    assert not len(queue)


def test_an_ack_of_a_message_confirms_it_too() -> None:
    queue = OfflineQueue()
    queue.add(node("message", {"id": "A", "type": "text"}))
    assert queue.confirm_ack(node("ack", {"class": "message", "id": "A"}))


def test_a_full_queue_lets_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OfflineQueue, "MOST", 2)
    queue = OfflineQueue()
    assert [queue.add(node("message", {"id": number})) for number in range(3)] == [True, True, False]
    assert [stanza.text("id") for stanza in queue] == ["1", "2"]
