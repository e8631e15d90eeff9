"""Stanzas wait, in order, until they are confirmed."""

from __future__ import annotations

import pytest

from simulator.binary_xml import Node, node
from simulator.deliveries import Delivery
from simulator.jid import Jid
from simulator.offline_queue import OfflineQueue

GROUP, ALICE, BOB = Jid("120363", "g.us"), Jid("1", "lid"), Jid("2", "lid", 3)


def ids(queue: OfflineQueue) -> list[str]:
    return [waiting.stanza.text("id") for waiting in queue]


def message(message_id: str, sender: Jid = ALICE) -> Node:
    return node("message", {"id": message_id, "type": "text", "from": sender})


def receipt(message_id: str, kind: str | None = None, sender: Jid = ALICE) -> Node:
    return node("receipt", {"id": message_id, "to": sender, "type": kind})


def ack(message_id: str) -> Node:
    return node("ack", {"class": "message", "id": message_id, "to": ALICE})


def test_order_is_kept_and_confirmed_stanzas_go() -> None:
    queue = OfflineQueue()
    for number in range(3):
        queue.add(message(str(number)))
    assert queue.confirm_receipt(receipt("1")) == 1
    assert ids(queue) == ["0", "2"]
    assert queue.confirm_receipt(receipt("1")) == 0, "a second receipt confirms nothing"


def test_a_receipt_with_a_list_confirms_each() -> None:
    queue = OfflineQueue()
    for number in range(3):
        queue.add(message(str(number)))
    listed = node("list", {}, node("item", {"id": "2"}))
    assert queue.confirm_receipt(node("receipt", {"id": "0", "to": ALICE}, listed)) == 2
    assert ids(queue) == ["1"]


def test_two_receipts_for_one_message_are_two_stanzas() -> None:
    queue = OfflineQueue()
    queue.add(node("receipt", {"id": "A"}))
    queue.add(node("receipt", {"id": "A", "type": "read"}))
    assert (len(queue), queue.count("receipt"), queue.count("message")) == (2, 2, 0)
    assert queue.confirm_ack(node("ack", {"class": "receipt", "id": "A", "type": "read"}))
    assert queue.confirm_ack(node("ack", {"class": "receipt", "id": "A"}))
    assert not len(queue)


def test_the_receipts_of_two_members_are_two_stanzas() -> None:
    queue = OfflineQueue()
    for member in (ALICE, BOB):
        queue.add(node("receipt", {"id": "A", "from": GROUP, "participant": member}))
    assert len(queue) == 2
    assert queue.confirm_ack(node("ack", {"class": "receipt", "id": "A", "to": GROUP, "participant": BOB}))
    assert [waiting.stanza.jid("participant") for waiting in queue] == [ALICE]


def test_one_id_of_two_senders_is_two_messages() -> None:
    queue = OfflineQueue()
    queue.add(message("A", ALICE))
    queue.add(message("A", BOB))
    assert queue.confirm_receipt(receipt("A", sender=BOB)) == 1
    assert [waiting.stanza.jid("from") for waiting in queue] == [ALICE]


def test_a_message_that_is_sent_twice_waits_twice() -> None:
    queue = OfflineQueue()
    queue.add(message("A"))
    queue.add(message("B"))
    queue.add(message("A"))
    queue.confirm_receipt(receipt("A"))
    assert ids(queue) == ["B", "A"]


def test_an_ack_of_a_message_confirms_it_too() -> None:
    queue = OfflineQueue()
    queue.add(message("A"))
    assert queue.waits_for(ack("A"))
    assert queue.confirm_ack(ack("A"))
    assert not queue.waits_for(ack("A"))


@pytest.mark.parametrize("is_ack_first", [True, False])
def test_the_ack_beside_a_retry_receipt_does_not_confirm_the_answer(is_ack_first: bool) -> None:
    """Clients send both for a message that they cannot read, in either order; the answer has the same id."""
    queue = OfflineQueue()
    queue.add(message("A"))
    if is_ack_first:
        queue.confirm_ack(ack("A"))
    queue.confirm_receipt(receipt("A", "retry"))
    queue.add(message("A"))
    if not is_ack_first:
        queue.confirm_ack(ack("A"))
    assert ids(queue) == ["A"]
    assert queue.confirm_receipt(receipt("A")) == 1


def test_after_a_new_login_an_ack_is_for_what_waits() -> None:
    queue = OfflineQueue()
    queue.add(message("A"))
    queue.confirm_receipt(receipt("A", "retry"))
    queue.begin_connection()
    queue.add(message("A"))
    assert queue.confirm_ack(ack("A"))


@pytest.mark.parametrize(
    ("confirmation", "how"),
    [(receipt("A", "inactive"), "receipt"), (receipt("A", "retry"), "retry"), (ack("A"), "ack")],
)
def test_the_record_of_a_message_says_how_it_was_confirmed(confirmation: Node, how: str) -> None:
    queue, delivery = OfflineQueue(), Delivery("A", "1@lid", "1@lid", ["msg"], 0)
    queue.add(message("A"), delivery)
    assert (delivery.acknowledged_at, delivery.acknowledged_by) == (None, "")
    if confirmation.tag == "ack":
        queue.confirm_ack(confirmation)
    else:
        queue.confirm_receipt(confirmation)
    assert delivery.acknowledged_by == how
    assert delivery.acknowledged_at is not None


def test_a_full_queue_lets_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OfflineQueue, "MOST", 2)
    queue = OfflineQueue()
    assert [queue.add(node("message", {"id": number})) for number in range(3)] == [True, True, False]
    assert ids(queue) == ["1", "2"]
