"""Parse requests and check them against the schema. Every violation names its field."""

from collections.abc import Callable, Iterator
from typing import Any

import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from service.domain.errors import FieldViolation, InvalidArgument

MOST_VIOLATIONS = 10
"""Most violations in one error, which travels in HTTP/2 headers: clients limit them to 8 KiB."""
_MAX_DESCRIPTION_CHARACTERS = 200
_FAIL_FAST_BYTES = 256 * 1024
"""Size in bytes above which validation stops at the first violation, to bound its time."""


def read_request(raw: bytes, parse: Callable[[bytes], Message]) -> Message:
    """Return the request in these bytes. Raises InvalidArgument if they are not one, or the schema forbids it."""
    try:
        request = parse(raw)
    except DecodeError as error:
        # No bytes at all are an empty message of the same type.
        violation = _undecodable(raw, parse(b"").DESCRIPTOR)
        raise InvalidArgument([violation], reason="MALFORMED_REQUEST") from error
    violations = violations_of(request, fail_fast=len(raw) > _FAIL_FAST_BYTES)
    # NUL in a string is a zero byte on the wire, so search the fields only if there is one.
    if b"\x00" in raw:
        violations += [
            FieldViolation(field, "must not contain the character NUL") for field in _fields_with_nul(request)
        ]
    if violations:
        raise InvalidArgument(violations[:MOST_VIOLATIONS])
    return request


def violations_of(message: Message, *, fail_fast: bool = False) -> list[FieldViolation]:
    """Return a message's violations of the schema's rules, at most MOST_VIOLATIONS."""
    try:
        protovalidate.validate(message, fail_fast=fail_fast)
    except protovalidate.ValidationError as error:
        found = error.violations[:MOST_VIOLATIONS]
        return [FieldViolation(_path(found.proto.field), _clip(found.proto.message)) for found in found]
    return []


def _path(field: protovalidate.FieldPathPb | None) -> str:
    """Return the path of a field as written in a request: labels["key"], states[2], text.body."""
    if field is None:
        return ""
    path = ""
    for element in field.elements:
        path += f".{element.field_name}" if path else str(element.field_name)
        if element.subscript is not None:
            value = element.subscript.value
            path += f"[{value}]" if element.subscript.field == "index" else f'["{str(value)[:64]}"]'
    return path


def _clip(text: str) -> str:
    return text if len(text) <= _MAX_DESCRIPTION_CHARACTERS else text[: _MAX_DESCRIPTION_CHARACTERS - 1] + "…"


def _fields_with_nul(message: Message, prefix: str = "") -> Iterator[str]:
    for field, value in message.ListFields():
        name = prefix + field.name
        if _is_map(field):
            if any(_has_nul(key) or _has_nul(item) for key, item in value.items()):
                yield name
        elif field.message_type is not None:
            for item in value if field.is_repeated else (value,):
                yield from _fields_with_nul(item, f"{name}.")
        elif any(_has_nul(item) for item in (value if field.is_repeated else (value,))):
            yield name


def _has_nul(value: Any) -> bool:
    return isinstance(value, str) and "\x00" in value


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _undecodable(raw: bytes, descriptor: Any) -> FieldViolation:
    field = _field_without_text(raw, descriptor)
    if field:
        return FieldViolation(field, "must be valid UTF-8")
    return FieldViolation("request", f"the bytes are not a {descriptor.full_name}")


def _field_without_text(raw: bytes, descriptor: Any) -> str:
    """Return the path of the first string that is not UTF-8, the usual fault; empty if there is none."""
    try:
        # Empty has no fields, so it keeps all of them as unparsed bytes.
        unknown = UnknownFieldSet(Empty.FromString(raw))
    except DecodeError:
        return ""
    for item in (unknown[index] for index in range(len(unknown))):
        field = descriptor.fields_by_number.get(item.field_number)
        if field is None or not isinstance(item.data, bytes):
            continue
        if field.type == field.TYPE_STRING and not _is_text(item.data):
            return str(field.name)
        if field.type == field.TYPE_MESSAGE:
            inner = _field_without_text(item.data, field.message_type)
            if inner:
                return str(field.name) if _is_map(field) else f"{field.name}.{inner}"
    return ""


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
