"""Messages of any kind that a phone sends, and what their stanza says of them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulator.binary_xml import Node, node
from tests.simulator.schemas import Composed


@dataclass(frozen=True)
class Letter:
    """A message that was composed elsewhere."""

    content: bytes
    """A serialised waE2E.Message, or anything at all."""
    type: str = "text"
    """WhatsApp's word for the stanza: text, media, reaction, poll, …"""
    media_type: str = ""
    edit: str = ""
    decrypt_fail: str = ""
    is_garbled: bool = False
    """Its ciphertext was damaged on the way; whoever asks for it again gets it whole."""
    unavailable: str | None = None
    """Not encrypted for linked devices at all: the type of <unavailable/> that they get instead."""

    @property
    def message(self) -> Composed:
        """What is encrypted."""
        return Composed(self.content)

    @property
    def attributes(self) -> dict[str, str]:
        """Of the stanza."""
        return {"type": self.type} | ({"edit": self.edit} if self.edit else {})

    def sealed(self, encrypted: Node) -> Node:
        """The part for one device (<to>, with an <enc> in it) as it leaves the phone."""
        if self.unavailable is not None:
            return node("to", encrypted.attrs, node("unavailable", {"type": self.unavailable}))
        return node("to", encrypted.attrs, *(self._sealed(inner) for inner in encrypted.find_all("enc")))

    def _sealed(self, inner: Node) -> Node:
        said = {"mediatype": self.media_type, "decrypt-fail": self.decrypt_fail}
        data = _garbled(inner.data) if self.is_garbled else inner.data
        return node("enc", {**inner.attrs, **{name: value for name, value in said.items() if value}}, data)


def _garbled(ciphertext: bytes) -> bytes:
    """With one bit turned in what both forms of a Signal message have near their end: the MAC, or what it is of."""
    return ciphertext[:-10] + bytes([ciphertext[-10] ^ 1]) + ciphertext[-9:]
