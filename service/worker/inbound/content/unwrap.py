"""Unwraps messages in messages, such as view-once and disappearing ones, edits, and copies from own devices."""

from typing import Any, NamedTuple

from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

#: Fields with keys and secrets for devices, not meant for people.
MACHINERY = frozenset(
    {
        "senderKeyDistributionMessage",
        "fastRatchetKeySenderKeyDistributionMessage",
        "groupRootKeyShare",
        "rootSecretDistributeMessage",
        "messageContextInfo",
    }
)

_MAX_DEPTH = 16
#: The two types that wrap a message. WhatsApp keeps adding fields of the first.
_WRAPPERS = {"FutureProofMessage", "DeviceSentMessage"}
_WRAPPINGS = frozenset(
    field.name for field in Message.DESCRIPTOR.fields if field.message_type and field.message_type.name in _WRAPPERS
)


class Unwrapped(NamedTuple):
    """The innermost message and its wrappings."""

    content: Any
    """A waE2E.Message."""
    wrappings: frozenset[str]
    """The fields that wrapped it."""


def unwrapped(content: Any) -> Unwrapped:
    """Return the innermost message, unwrapping at most 16 levels.

    A wrapped message beside another content stays wrapped, so that it does not hide that content.
    """
    undone: list[str] = []
    while len(undone) < _MAX_DEPTH and (name := _wrapping_of(content)) is not None:
        undone.append(name)
        content = getattr(content, name).message
    return Unwrapped(content, frozenset(undone))


def known_names(message: Any) -> list[str]:
    """Return the fields of a message that the library knows and that hold content."""
    return [field.name for field, _ in message.ListFields() if field.name not in MACHINERY]


def _wrapping_of(content: Any) -> str | None:
    names = known_names(content)
    is_wrapping = len(names) == 1 and names[0] in _WRAPPINGS and getattr(content, names[0]).HasField("message")
    return names[0] if is_wrapping else None
