"""Binary XML: how stanzas look on the wire.

Encoding writes every word as a plain string, which clients accept; decoding needs the token dictionaries (`tokens.py`),
because clients write words as tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from simulator.jid import LID_SERVER, PN_SERVER, Jid
from simulator.tokens import Tokens, installed_tokens

_LIST_EMPTY = 0
_DICTIONARY_0 = 236
_DICTIONARY_3 = 239
_AD_JID = 247
_LIST_8 = 248
_LIST_16 = 249
_JID_PAIR = 250
_HEX_8 = 251
_BINARY_8 = 252
_BINARY_20 = 253
_BINARY_32 = 254
_NIBBLE_8 = 255

_NIBBLES = "0123456789-."
_HEX = "0123456789ABCDEF"
_LID_DOMAIN = 1
_DEEPEST = 64

Value = str | Jid
#: Types that attributes may have.
Attrs = Mapping[str, Value | int | None]


class BinaryXmlError(ValueError):
    """The bytes are not a stanza."""


@dataclass
class Node:
    """A stanza or a part of one: attributes are strings or addresses, the content is bytes or further nodes."""

    tag: str
    attrs: dict[str, Value] = field(default_factory=dict)
    content: bytes | list[Node] | None = None

    @property
    def children(self) -> list[Node]:
        """The child nodes; none if the content is bytes."""
        return self.content if isinstance(self.content, list) else []

    @property
    def data(self) -> bytes:
        """The bytes; empty if the content is nodes."""
        return self.content if isinstance(self.content, bytes) else b""

    def find(self, tag: str) -> Node | None:
        """Return the first child with this tag."""
        return next(self.find_all(tag), None)

    def find_all(self, tag: str) -> Iterator[Node]:
        """Return the children with this tag."""
        return (child for child in self.children if child.tag == tag)

    def text(self, name: str) -> str:
        """Return an attribute as text; empty if absent."""
        return str(self.attrs.get(name, ""))

    def jid(self, name: str) -> Jid | None:
        """Return an attribute as an address; None if absent or not an address."""
        value = self.attrs.get(name)
        return Jid.parse(value) if isinstance(value, str) else value


def node(tag: str, attrs: Attrs | None = None, *content: Node | bytes) -> Node:
    """Build a stanza from bytes or children. Attributes that are None are omitted; numbers become text."""
    kept = {
        name: value if isinstance(value, Jid) else str(value)
        for name, value in (attrs or {}).items()
        if value is not None
    }
    if len(content) == 1 and isinstance(content[0], bytes):
        return Node(tag, kept, content[0])
    children = [child for child in content if isinstance(child, Node)]
    return Node(tag, kept, children or None)


def encode(stanza: Node) -> bytes:
    """Return the stanza's bytes."""
    out = bytearray()
    _write_node(out, stanza)
    return bytes(out)


def decode(data: bytes, tokens: Tokens | None = None) -> Node:
    """Return the stanza in these bytes."""
    reader = _Reader(data, tokens or installed_tokens())
    try:
        stanza = reader.node(0)
    except (IndexError, UnicodeDecodeError) as error:
        raise BinaryXmlError(f"stanza is cut short or garbled: {error}") from error
    if reader.at != len(data):
        raise BinaryXmlError(f"{len(data) - reader.at} bytes follow the stanza")
    return stanza


def _write_node(out: bytearray, stanza: Node) -> None:
    _write_list(out, 1 + 2 * len(stanza.attrs) + (stanza.content is not None))
    _write_bytes(out, stanza.tag.encode())
    for name, value in stanza.attrs.items():
        _write_bytes(out, name.encode())
        if isinstance(value, Jid):
            _write_jid(out, value)
        else:
            _write_bytes(out, value.encode())
    if isinstance(stanza.content, bytes):
        _write_bytes(out, stanza.content)
    elif stanza.content is not None:
        _write_list(out, len(stanza.content))
        for child in stanza.content:
            _write_node(out, child)


def _write_list(out: bytearray, size: int) -> None:
    if size == 0:
        out.append(_LIST_EMPTY)
    elif size < 256:
        out += bytes((_LIST_8, size))
    else:
        out.append(_LIST_16)
        out += size.to_bytes(2, "big")


def _write_bytes(out: bytearray, data: bytes) -> None:
    size = len(data)
    if size < 256:
        out += bytes((_BINARY_8, size))
    elif size < 1 << 20:
        out.append(_BINARY_20)
        out += size.to_bytes(3, "big")
    else:
        out.append(_BINARY_32)
        out += size.to_bytes(4, "big")
    out += data


def _write_jid(out: bytearray, jid: Jid) -> None:
    if jid.device:
        out += bytes((_AD_JID, _LID_DOMAIN if jid.server == LID_SERVER else 0, jid.device))
        _write_bytes(out, jid.user.encode())
        return
    out.append(_JID_PAIR)
    if jid.user:
        _write_bytes(out, jid.user.encode())
    else:
        out.append(_LIST_EMPTY)
    _write_bytes(out, jid.server.encode())


class _Reader:
    """Reads one stanza; `IndexError` means that the bytes ended too early."""

    def __init__(self, data: bytes, tokens: Tokens) -> None:
        self._data = data
        self._tokens = tokens
        self.at = 0

    def node(self, depth: int) -> Node:
        if depth > _DEEPEST:
            raise BinaryXmlError("stanza is nested too deeply")
        size = self._list_size(self._byte())
        if size == 0:
            raise BinaryXmlError("stanza without a tag")
        tag = str(self._value(self._byte()))
        attrs: dict[str, Value] = {}
        for _ in range((size - 1) // 2):
            name = str(self._value(self._byte()))
            attrs[name] = self._value(self._byte())
        return Node(tag, attrs, self._content(depth) if size % 2 == 0 else None)

    def _content(self, depth: int) -> bytes | list[Node]:
        mark = self._byte()
        if mark in (_LIST_EMPTY, _LIST_8, _LIST_16):
            return [self.node(depth + 1) for _ in range(self._list_size(mark))]
        if mark in (_BINARY_8, _BINARY_20, _BINARY_32):
            return self._binary(mark)
        return str(self._value(mark)).encode()

    def _value(self, mark: int) -> Value:  # noqa: PLR0911 - one for each kind of value
        if mark == _LIST_EMPTY:
            return ""
        if mark < _DICTIONARY_0:
            return self._tokens.single[mark]
        if mark <= _DICTIONARY_3:
            return self._tokens.double[mark - _DICTIONARY_0][self._byte()]
        if mark in (_BINARY_8, _BINARY_20, _BINARY_32):
            return self._binary(mark).decode()
        if mark == _NIBBLE_8:
            return self._packed(_NIBBLES)
        if mark == _HEX_8:
            return self._packed(_HEX)
        if mark == _JID_PAIR:
            user, server = str(self._value(self._byte())), str(self._value(self._byte()))
            return Jid(user, server)
        if mark == _AD_JID:
            domain, device = self._byte(), self._byte()
            return Jid(str(self._value(self._byte())), LID_SERVER if domain == _LID_DOMAIN else PN_SERVER, device)
        raise BinaryXmlError(f"unknown mark {mark}")

    def _list_size(self, mark: int) -> int:
        if mark == _LIST_EMPTY:
            return 0
        if mark == _LIST_8:
            return self._byte()
        if mark == _LIST_16:
            return int.from_bytes(self._take(2), "big")
        raise BinaryXmlError(f"mark {mark} where a list was expected")

    def _binary(self, mark: int) -> bytes:
        if mark == _BINARY_8:
            return self._take(self._byte())
        if mark == _BINARY_20:
            return self._take(int.from_bytes(self._take(3), "big") & 0xFFFFF)
        return self._take(int.from_bytes(self._take(4), "big"))

    def _packed(self, alphabet: str) -> str:
        start = self._byte()
        halves = [half for byte in self._take(start & 0x7F) for half in (byte >> 4, byte & 0xF)]
        if start & 0x80:
            halves.pop()
        return "".join(alphabet[half] for half in halves)

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _take(self, size: int) -> bytes:
        if self.at + size > len(self._data):
            raise BinaryXmlError("stanza is cut short")
        self.at += size
        return self._data[self.at - size : self.at]
