"""Builds messages as a phone sends them: their content, and the attributes of their stanza."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from simulator.binary_xml import Attrs, Node, node
from simulator.schemas import MESSAGE_EDIT, Composed, Content, Context, MessageKey, ProtocolMessage, Wrapped

_EDIT_OF_A_MESSAGE = "1"


@dataclass(frozen=True)
class Letter:
    """A message of any kind. Its bytes are encrypted as they are."""

    content: bytes
    """A serialised waE2E.Message, or arbitrary bytes."""
    type: str = "text"
    """WhatsApp's stanza type: text, media, reaction, poll, …"""
    media_type: str = ""
    edit: str = ""
    decrypt_fail: str = ""
    is_garbled: bool = False
    """Damage the first ciphertext. A device that asks again gets an intact one."""
    unavailable: str | None = None
    """The type of <unavailable/> that linked devices get instead of a ciphertext."""

    @property
    def message(self) -> Composed:
        """Return the content to encrypt."""
        return Composed(self.content)

    @property
    def attributes(self) -> dict[str, str]:
        """Return the attributes of the stanza."""
        return {"type": self.type} | ({"edit": self.edit} if self.edit else {})

    def sealed(self, kind: str, ciphertext: bytes) -> Node:
        """Return the <enc> that the phone sends first, or its replacement."""
        if self.unavailable is not None:
            return node("unavailable", {"type": self.unavailable})
        return self._enc(kind, _garbled(ciphertext) if self.is_garbled else ciphertext, None)

    def sealed_again(self, kind: str, ciphertext: bytes, count: int) -> Node:
        """Return the <enc> for a device that has asked for the message `count` times."""
        return self._enc(kind, ciphertext, count)

    def _enc(self, kind: str, ciphertext: bytes, count: int | None) -> Node:
        about: Attrs = {
            "v": 2,
            "type": kind,
            "count": count,
            "mediatype": self.media_type or None,
            "decrypt-fail": self.decrypt_fail or None,
        }
        return node("enc", about, ciphertext)


def text_letter(text: str, *, is_garbled: bool = False) -> Letter:
    """Return a text. Phones add a secret to every message, by which later messages refer to it; readers store it."""
    content = Content(conversation=text, context=Context(secrets.token_bytes(32)))
    return Letter(content.encode(), is_garbled=is_garbled)


def edit_letter(chat: str, message_id: str, text: str) -> Letter:
    """Return an edit that replaces the text of a message by the same author."""
    edit = ProtocolMessage(
        key=MessageKey(chat=chat, from_me=1, id=message_id),
        type=MESSAGE_EDIT,
        edited=Content(conversation=text),
        timestamp_ms=int(time.time() * 1000),
    )
    content = Content(edited=Wrapped(Content(protocol_message=edit)))
    return Letter(content.encode(), edit=_EDIT_OF_A_MESSAGE, decrypt_fail="hide")


def _garbled(ciphertext: bytes) -> bytes:
    """Flip a bit near the end: in the MAC or signature of a message, or in the data that they cover."""
    return ciphertext[:-10] + bytes([ciphertext[-10] ^ 1]) + ciphertext[-9:]
