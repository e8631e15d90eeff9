"""Encodes and decodes the protocol-buffer wire format as typed dataclasses.

The simulator speaks a dozen small messages, some of WhatsApp's and some of Signal's. Declaring them here costs less
than importing neonize's generated modules, which bring the client and the Go library into the server's process.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator
from typing import Any, Self


class WireError(ValueError):
    """The bytes are not a protocol-buffer message."""


def number(field_number: int) -> Any:
    """Return an optional field with this number. An absent field is None."""
    return dataclasses.field(default=None, metadata={"number": field_number})


def repeated(field_number: int) -> Any:
    """Return a repeated field with this number. An absent field is an empty list."""
    return dataclasses.field(default_factory=list, metadata={"number": field_number})


def encode_varint(value: int) -> bytes:
    """Encode an unsigned integer with seven bits per byte, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the integer at this offset and the offset after it."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise WireError("varint does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields_of(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Return every field of a message as (number, value). Fixed-size fields are returned as bytes."""
    at = 0
    while at < len(data):
        key, at = decode_varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = decode_varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = decode_varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise WireError(f"wire type {kind}")
        if at + size > len(data):
            raise WireError("field is longer than its message")
        yield key >> 3, data[at : at + size]
        at += size


@dataclasses.dataclass(frozen=True)
class _Field:
    """The wire format of a dataclass field."""

    name: str
    number: int
    kind: type
    is_repeated: bool


@dataclasses.dataclass
class Record:
    """A message. Subclasses are dataclasses whose fields are created with `number` and `repeated`."""

    @classmethod
    @functools.cache
    def _fields(cls) -> tuple[_Field, ...]:
        hints = typing.get_type_hints(cls)
        described = []
        for field in dataclasses.fields(cls):
            hint = hints[field.name]
            is_repeated = typing.get_origin(hint) is list
            kind = next(kind for kind in typing.get_args(hint) if kind is not type(None))
            described.append(_Field(field.name, field.metadata["number"], kind, is_repeated))
        return tuple(described)

    def encode(self) -> bytes:
        """Return the message's bytes, with the fields in order of declaration."""
        out = bytearray()
        for field in self._fields():
            value = getattr(self, field.name)
            for item in value if field.is_repeated else [value]:
                if item is not None:
                    out += _encode_field(field.number, item)
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the message in these bytes. Unknown fields are skipped. Of a repeated optional field the last wins."""
        known = {field.number: field for field in cls._fields()}
        message = cls()
        for field_number, raw in fields_of(data):
            field = known.get(field_number)
            if field is None:
                continue
            value = _decode_value(field.kind, raw)
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
        return message


def _encode_field(field_number: int, value: int | bytes | str | Record) -> bytes:
    if isinstance(value, int):
        return encode_varint(field_number << 3) + encode_varint(value)
    data = value if isinstance(value, bytes) else value.encode()
    return encode_varint(field_number << 3 | 2) + encode_varint(len(data)) + data


def _decode_value(kind: type, raw: int | bytes) -> object:
    if isinstance(raw, int):
        if kind is not int:
            raise WireError(f"number where {kind.__name__} was expected")
        return raw
    if kind is int:
        raise WireError("bytes where a number was expected")
    if kind is str:
        return raw.decode(errors="replace")
    if issubclass(kind, Record):
        return kind.decode(raw)
    return raw
