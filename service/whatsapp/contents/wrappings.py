"""Messages in messages: for view-once, for disappearing ones, for edits, for the account's other devices, and more."""

from typing import Any, NamedTuple

from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

_MOST = 16
#: WhatsApp wraps in one of two forms, and invents new names for the first again and again.
_FORMS = {"FutureProofMessage", "DeviceSentMessage"}
_WRAPPINGS = frozenset(
    field.name for field in Message.DESCRIPTOR.fields if field.message_type and field.message_type.name in _FORMS
)


class Unwrapped(NamedTuple):
    """What was inside."""

    content: Any
    """waE2E.Message."""
    wrappings: frozenset[str]
    """The fields it was in."""


def unwrapped(content: Any) -> Unwrapped:
    """The innermost message. What is wrapped deeper than anybody would stays wrapped."""
    names: list[str] = []
    while len(names) < _MOST:
        name = next((field.name for field, _ in content.ListFields() if field.name in _WRAPPINGS), None)
        if name is None or not getattr(content, name).HasField("message"):
            break
        names.append(name)
        content = getattr(content, name).message
    return Unwrapped(content, frozenset(names))
