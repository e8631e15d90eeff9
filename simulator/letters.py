"""Messages as a phone sends them: their content, and what their stanza says of it."""

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

    def sealed(self, kind: str, ciphertext: bytes) -> Node:
        """Return the <enc> that the phone sends at first, or what stands in its place."""
        if self.unavailable is not None:
            return node("unavailable", {"type": self.unavailable})
        return self._enc(kind, _garbled(ciphertext) if self.is_garbled else ciphertext, None)

    def sealed_again(self, kind: str, ciphertext: bytes, count: int) -> Node:
        """Return the <enc> for a device that asked for the message again; `count` says how often."""
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
    """Return a text. Phones give every message a secret, by which later ones refer to it; its readers keep it."""
    content = Content(conversation=text, context=Context(secrets.token_bytes(32)))
    return Letter(content.encode(), is_garbled=is_garbled)


def edit_letter(chat: str, message_id: str, text: str) -> Letter:
    """Return an edit by which a message gets another text, from the author of both."""
    edit = ProtocolMessage(
        key=MessageKey(chat=chat, from_me=1, id=message_id),
        type=MESSAGE_EDIT,
        edited=Content(conversation=text),
        timestamp_ms=int(time.time() * 1000),
    )
    content = Content(edited=Wrapped(Content(protocol_message=edit)))
    return Letter(content.encode(), edit=_EDIT_OF_A_MESSAGE, decrypt_fail="hide")


def _garbled(ciphertext: bytes) -> bytes:
    """Flip a bit near the end: in the MAC or the signature of a message, or in what they are of."""
    return ciphertext[:-10] + bytes([ciphertext[-10] ^ 1]) + ciphertext[-9:]
