"""Stanzas as JSON, for the control interface; and those by which the server tells devices of what happens.

What looks like an address (it has an @) is one: clients take no text in its place.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from simulator.binary_xml import Node, Value, node
from simulator.jid import Jid

Address = str | Jid


class NoStanza(ValueError):
    """JSON that is not a stanza."""


def to_json(stanza: Node) -> dict[str, Any]:
    """A stanza as {"tag", "attrs", and "text" or "children" if it has either}. Bytes have to be text."""
    shown: dict[str, Any] = {"tag": stanza.tag, "attrs": {name: str(value) for name, value in stanza.attrs.items()}}
    if isinstance(stanza.content, bytes):
        shown["text"] = stanza.content.decode()
    elif stanza.content is not None:
        shown["children"] = [to_json(child) for child in stanza.content]
    return shown


def from_json(shown: object) -> Node:
    """The stanza. Raises NoStanza."""
    match shown:
        case {"tag": str(tag), "attrs": dict(attrs), "text": str(text)}:
            return Node(tag, _values(attrs), text.encode())
        case {"tag": str(tag), "attrs": dict(attrs), "children": list(children)}:
            return Node(tag, _values(attrs), [from_json(child) for child in children])
        case {"tag": str(tag), "attrs": dict(attrs)}:
            return Node(tag, _values(attrs))
        case _:
            raise NoStanza("a stanza has a tag, attrs, and perhaps text or children")


def call(caller: Address, step: Node, **attrs: Value | int | None) -> Node:
    """A step of a call: `step` is what is inside."""
    return node("call", {"from": caller, "id": _new_id(), "t": _now(), **attrs}, step)


def notification(kind: str, source: Address, *changes: Node, **attrs: Value | int | None) -> Node:
    """Something that the server tells of: a group (w:gp2), a picture, an identity (encrypt)."""
    return node("notification", {"from": source, "id": _new_id(), "type": kind, "t": _now(), **attrs}, *changes)


def presence(person: Address, **attrs: Value | int | None) -> Node:
    """Somebody is there, or no longer (type="unavailable", last=seconds)."""
    return node("presence", {"from": person, **attrs})


def chat_state(chat: Address, state: str, participant: Address | None = None, media: str | None = None) -> Node:
    """Somebody writes (composing), or no longer (paused)."""
    return node("chatstate", {"from": chat, "participant": participant}, node(state, {"media": media}))


def _values(attrs: dict[object, object]) -> dict[str, Value]:
    return {str(name): Jid.parse(str(value)) if "@" in str(value) else str(value) for name, value in attrs.items()}


def _new_id() -> str:
    return secrets.token_hex(8).upper()


def _now() -> int:
    return int(time.time())
