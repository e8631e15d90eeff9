"""Removes secrets and masks personal data in log lines.

Protobuf messages are masked by the (zap.v1.sensitivity) option of their fields. Free text is masked by shape
(service/domain/masking.py), because libraries and errors may put sensitive data into it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from service.domain.masking import SECRET, cut, masked
from zap.v1 import options_pb2

PERSONAL = "<personal>"
MAX_VALUE_CHARACTERS = 64 * 1024
"""Limit of one value, such as a stack trace; masking blocks the event loop for some microseconds a character."""

_SECRET_KEYS = re.compile(
    r"password|passwd|secret|token|authorization|dsn|database_url|redis_url|proxy_url|qr_text", re.IGNORECASE
)
_VERBATIM_KEYS = frozenset({"timestamp", "level", "logger", "method", "code", "session_id", "node", "incident"})
"""Keys whose values are not masked: the service writes them, or they are ids that make a line understandable."""

Mask = Callable[[str], str]


def loggable(message: Message) -> dict[str, Any]:
    """Return the fields of a message for a log; a sensitive field that is set has a placeholder as its value."""
    return {field.name: _field_value(field, value) for field, value in message.ListFields()}


def redact(_: Any, __: str, line: Mapping[str, Any]) -> dict[str, Any]:
    """Redact every value of a log line (a structlog processor)."""
    # A session id may look like a phone number; masking it would hide which session the line is about.
    session_id = line.get("session_id")
    unmasked = session_id if isinstance(session_id, str) else ""

    def mask(text: str) -> str:
        return masked(cut(text, MAX_VALUE_CHARACTERS), unmasked)

    return {key: _redacted(key, value, mask) for key, value in line.items()}


def _redacted(key: str, value: Any, mask: Mask) -> Any:  # noqa: PLR0911 - a table with one return for each type
    if _SECRET_KEYS.search(key):
        return SECRET if value else value
    match value:
        case Message():
            return loggable(value)
        case str():
            return value if key in _VERBATIM_KEYS else mask(value)
        case bytes():
            return f"<{len(value)} bytes>"
        case Mapping():
            return {mask(str(inner)): _redacted(str(inner), item, mask) for inner, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_redacted(key, item, mask) for item in value]
        case bool() | int() | float() | None:
            return value
        case _:
            return mask(str(value))


def _field_value(field: FieldDescriptor, value: Any) -> Any:
    match field.GetOptions().Extensions[options_pb2.sensitivity]:
        case options_pb2.SENSITIVITY_SECRET:
            return SECRET
        case options_pb2.SENSITIVITY_PERSONAL:
            return PERSONAL
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {str(key): _item_value(field.message_type.fields_by_name["value"], item) for key, item in value.items()}
    if field.is_repeated:
        return [_item_value(field, item) for item in value]
    return _item_value(field, value)


def _item_value(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Message):
        return loggable(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else value
