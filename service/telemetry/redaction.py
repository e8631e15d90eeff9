"""What logs must not hold: secrets never, what says something about a person masked.

Protobuf messages are masked by the (zap.v1.sensitivity) option of their fields. Free text is masked by shape, in case
a library or an error puts into it what nobody meant to log.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from zap.v1 import options_pb2

SECRET = "<secret>"  # noqa: S105 - it stands where one was
PERSONAL = "<personal>"

_SECRET_KEYS = re.compile(
    r"password|passwd|secret|token|authorization|dsn|database_url|redis_url|proxy_url|qr_text", re.IGNORECASE
)
_VERBATIM_KEYS = frozenset({"timestamp", "level", "logger", "method", "code", "session_id", "node", "incident"})
"""Written by us, or ids that callers chose: without them a log explains nothing."""

_SHAPES = (
    # A pairing's QR text: whoever scans it takes the account over.
    (re.compile(r"\d@[A-Za-z0-9+/=]{20,}(,[A-Za-z0-9+/=]*){2,}"), SECRET),
    (re.compile(r"(?i)\bbearer\s+\S+"), f"Bearer {SECRET}"),
    (re.compile(r"(?<=://)[^/\s@]*:[^/\s@]*(?=@)"), SECRET),
    (re.compile(r"(?i)\b(password|passwd|pwd|secret|token)=[^\s&;,]+"), rf"\1={SECRET}"),
    # Phone numbers, alone and in JIDs: their last two digits are enough to recognise one's own.
    (re.compile(r"(?<![0-9A-Za-z.])\+?\d{5,18}(\d\d)(?![0-9A-Za-z]|\.\d)"), r"…\1"),
)


def loggable(message: Message) -> dict[str, Any]:
    """The fields of a message that a log may hold; the others by a placeholder, so that one sees they were set."""
    return dict(_fields(message))


def masked(text: str) -> str:
    """Free text without what looks like a secret or a phone number."""
    for shape, placeholder in _SHAPES:
        text = shape.sub(placeholder, text)
    return text


def redact(_: Any, __: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """structlog's processor: every value of a line of log as it may be written."""
    return {key: _redacted(key, value) for key, value in line.items()}


def _redacted(key: str, value: Any) -> Any:  # noqa: PLR0911 - one line for each type is the table it looks like
    if _SECRET_KEYS.search(key):
        return SECRET if value else value
    match value:
        case Message():
            return loggable(value)
        case str():
            return value if key in _VERBATIM_KEYS else masked(value)
        case bytes():
            return f"<{len(value)} bytes>"
        case Mapping():
            return {str(inner): _redacted(str(inner), item) for inner, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_redacted(key, item) for item in value]
        case bool() | int() | float() | None:
            return value
        case _:
            return masked(str(value))


def _fields(message: Message) -> Iterator[tuple[str, Any]]:
    for field, value in message.ListFields():
        match field.GetOptions().Extensions[options_pb2.sensitivity]:
            case options_pb2.SENSITIVITY_SECRET:
                yield field.name, SECRET
            case options_pb2.SENSITIVITY_PERSONAL:
                yield field.name, PERSONAL
            case _:
                yield field.name, _plain(field, value)


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {str(key): _item(field.message_type.fields_by_name["value"], item) for key, item in value.items()}
    if field.is_repeated:
        return [_item(field, item) for item in value]
    return _item(field, value)


def _item(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Message):
        return loggable(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else value
