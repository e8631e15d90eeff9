"""Queues the stanzas that a device has not confirmed, across connections. A real server keeps them for weeks."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from simulator.binary_xml import Node
from simulator.deliveries import Delivery

#: Values that a stanza shares with its confirmation: tag, id, type (except for messages), from, participant.
Key = tuple[str, str, str, str, str]


@dataclass(eq=False)
class Waiting:
    """A stanza that waits for its confirmation, and the record of it if it is a message."""

    stanza: Node
    delivery: Delivery | None
    position: int


class OfflineQueue:
    """Stanzas in order of arrival, each kept until the device confirms it."""

    MOST = 50_000

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, Waiting] = OrderedDict()
        self._by_key: dict[Key, deque[Waiting]] = {}
        self._next_place = 0
        #: messages confirmed by a retry receipt: an ack that follows is not for the answer that then waits
        self._asked_again: set[Key] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(list(self._waiting.values()))

    def count(self, tag: str) -> int:
        """Return the number of waiting stanzas with this tag."""
        return sum(waiting.stanza.tag == tag for waiting in self._waiting.values())

    def add(self, stanza: Node, delivery: Delivery | None = None) -> bool:
        """Queue a stanza. Return False if the oldest one was dropped for it."""
        waiting = self._waiting[self._next_place] = Waiting(stanza, delivery, self._next_place)
        self._by_key.setdefault(_key(stanza), deque()).append(waiting)
        self._next_place += 1
        if len(self._waiting) > self.MOST:
            self._take(_key(next(iter(self._waiting.values())).stanza))
            return False
        return True

    def confirm_receipt(self, receipt: Node) -> int:
        """Remove the messages that a receipt confirms. Return their number."""
        how = "retry" if receipt.text("type") == "retry" else "receipt"
        keys = [_of_message(receipt, message_id) for message_id in _ids(receipt)]
        confirmed = [self._confirm(key, how) for key in keys]
        if how == "retry":
            self._asked_again.update(key for key, waited in zip(keys, confirmed, strict=True) if waited)
        return sum(confirmed)

    def confirm_ack(self, ack: Node) -> bool:
        """Remove the stanza that an ack confirms. Return False if there is none."""
        key = _acknowledged(ack)
        if key in self._asked_again:
            self._asked_again.discard(key)
            return False
        return self._confirm(key, "ack")

    def waits_for(self, confirmation: Node) -> bool:
        """Return whether this receipt or ack confirms a waiting stanza."""
        is_receipt = confirmation.tag == "receipt"
        key = _of_message(confirmation, confirmation.text("id")) if is_receipt else _acknowledged(confirmation)
        return key in self._by_key

    def begin_connection(self) -> None:
        """Record a login: acks that the device did not send before will not arrive."""
        self._asked_again.clear()

    def _confirm(self, key: Key, how: str) -> bool:
        waiting = self._take(key)
        if waiting is not None and waiting.delivery is not None:
            waiting.delivery.acknowledge(how)
        return waiting is not None

    def _take(self, key: Key) -> Waiting | None:
        """Remove the oldest stanza with this key."""
        alike = self._by_key.get(key)
        if not alike:
            return None
        waiting = alike.popleft()
        if not alike:
            del self._by_key[key]
        del self._waiting[waiting.position]
        return waiting


def _key(stanza: Node) -> Key:
    kind = stanza.text("type") if stanza.tag != "message" else ""
    return stanza.tag, stanza.text("id"), kind, stanza.text("from"), stanza.text("participant")


def _acknowledged(ack: Node) -> Key:
    kind = ack.text("type") if ack.text("class") != "message" else ""
    return ack.text("class"), ack.text("id"), kind, ack.text("to"), ack.text("participant")


def _of_message(receipt: Node, message_id: str) -> Key:
    return "message", message_id, "", receipt.text("to"), receipt.text("participant")


def _ids(receipt: Node) -> list[str]:
    listed = receipt.find("list")
    return [receipt.text("id"), *(item.text("id") for item in (listed.children if listed else []))]
