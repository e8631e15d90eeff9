"""What a device has not confirmed yet. It survives connections; a real server keeps it for weeks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from tests.simulator.binary_xml import Node

Key = tuple[str, str, str]


class OfflineQueue:
    """Stanzas in order of arrival, each kept until the device confirms it."""

    MOST = 50_000

    def __init__(self) -> None:
        self._stanzas: OrderedDict[Key, Node] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stanzas)

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._stanzas.values()))

    def count(self, tag: str) -> int:
        """How many stanzas with this tag wait."""
        return sum(key[0] == tag for key in self._stanzas)

    def add(self, stanza: Node) -> bool:
        """Keep a stanza; False if the oldest had to go for it."""
        self._stanzas[_key(stanza)] = stanza
        if len(self._stanzas) > self.MOST:
            self._stanzas.popitem(last=False)
            return False
        return True

    def confirm_message(self, message_id: str) -> bool:
        """A receipt for this message came; False if it was not waiting."""
        return self._stanzas.pop(("message", message_id, ""), None) is not None

    def confirm_ack(self, ack: Node) -> bool:
        """An ack came; False if nothing was waiting for it."""
        return self._stanzas.pop(_acknowledged(ack), None) is not None

    def waits_for(self, confirmation: Node) -> bool:
        """Whether this receipt, or this ack, is of something that waits."""
        is_receipt = confirmation.tag == "receipt"
        return (
            ("message", confirmation.text("id"), "") if is_receipt else _acknowledged(confirmation)
        ) in self._stanzas


def _acknowledged(ack: Node) -> Key:
    return ack.text("class"), ack.text("id"), ack.text("type") if ack.text("class") != "message" else ""


def _key(stanza: Node) -> Key:
    return stanza.tag, stanza.text("id"), stanza.text("type") if stanza.tag != "message" else ""
