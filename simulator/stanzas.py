"""Converts stanzas to and from JSON for the control interface, and builds the server's notifications.

A JSON text with an @ becomes an address, because clients do not accept a text instead of an address.
"""

from __future__ import annotations

import base64
import secrets
import time
from typing import Any

from simulator.binary_xml import Node, Value, node
from simulator.jid import Jid

Address = str | Jid


class NoStanza(ValueError):
    """The JSON is not a stanza."""


def to_json(stanza: Node) -> dict[str, Any]:
    """Return {"tag", "attrs", and "text", "data" (bytes in base64) or "children" if it has any of these}."""
    shown: dict[str, Any] = {"tag": stanza.tag, "attrs": {name: str(value) for name, value in stanza.attrs.items()}}
    if isinstance(stanza.content, bytes):
        shown |= _shown(stanza.content)
    elif stanza.content is not None:
        shown["children"] = [to_json(child) for child in stanza.content]
    return shown


def from_json(shown: object) -> Node:
    """Return the stanza. Raise NoStanza."""
    match shown:
        case {"tag": str(tag), "attrs": dict(attrs), "text": str(text)}:
            return Node(tag, _values(attrs), text.encode())
        case {"tag": str(tag), "attrs": dict(attrs), "data": str(data)}:
            return Node(tag, _values(attrs), base64.b64decode(data, validate=True))
        case {"tag": str(tag), "attrs": dict(attrs), "children": list(children)}:
            return Node(tag, _values(attrs), [from_json(child) for child in children])
        case {"tag": str(tag), "attrs": dict(attrs)}:
            return Node(tag, _values(attrs))
        case _:
            raise NoStanza("a stanza has a tag, attrs, and perhaps text, data or children")


def call(caller: Address, step: Node, **attrs: Value | int | None) -> Node:
    """Return a step of a call with `step` as its content."""
    return node("call", {"from": caller, "id": _new_id(), "t": _now(), **attrs}, step)


def notification(kind: str, source: Address, *changes: Node, **attrs: Value | int | None) -> Node:
    """Return a notification about a group (w:gp2), a picture or an identity (encrypt)."""
    return node("notification", {"from": source, "id": _new_id(), "type": kind, "t": _now(), **attrs}, *changes)


def presence(person: Address, **attrs: Value | int | None) -> Node:
    """Return the presence of a person: online, or offline (type="unavailable", last=seconds)."""
    return node("presence", {"from": person, **attrs})


def chat_state(chat: Address, state: str, participant: Address | None = None, media: str | None = None) -> Node:
    """Return the chat state of a person: writing (composing) or stopped (paused)."""
    return node("chatstate", {"from": chat, "participant": participant}, node(state, {"media": media}))


def _shown(content: bytes) -> dict[str, str]:
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError:
        return {"data": base64.b64encode(content).decode()}


def _values(attrs: dict[object, object]) -> dict[str, Value]:
    return {str(name): Jid.parse(str(value)) if "@" in str(value) else str(value) for name, value in attrs.items()}


def _new_id() -> str:
    return secrets.token_hex(8).upper()


def _now() -> int:
    return int(time.time())
