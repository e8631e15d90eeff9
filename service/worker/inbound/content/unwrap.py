"""Messages in messages: for view-once, for disappearing ones, for edits, for the account's other devices, and more."""

from typing import Any, NamedTuple

from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

#: Parts of a message that no person wrote and no person reads: keys and secrets for the devices.
MACHINERY = frozenset(
    {
        "senderKeyDistributionMessage",
        "fastRatchetKeySenderKeyDistributionMessage",
        "groupRootKeyShare",
        "rootSecretDistributeMessage",
        "messageContextInfo",
    }
)

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
    """The innermost message. What is wrapped deeper than anybody would stays wrapped.

    So does what lies beside another content: it must not hide that.
    """
    undone: list[str] = []
    while len(undone) < _MOST and (name := _wrapping_of(content)) is not None:
        undone.append(name)
        content = getattr(content, name).message
    return Unwrapped(content, frozenset(undone))


def known_names(message: Any) -> list[str]:
    """The fields of a message that the library knows and that hold content."""
    return [field.name for field, _ in message.ListFields() if field.name not in MACHINERY]


def _wrapping_of(content: Any) -> str | None:
    names = known_names(content)
    is_wrapping = len(names) == 1 and names[0] in _WRAPPINGS and getattr(content, names[0]).HasField("message")
    return names[0] if is_wrapping else None
