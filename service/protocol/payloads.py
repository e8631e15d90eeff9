"""Convert messages of the protos to values that the core passes on unread, and back."""

from typing import TypeVar

from google.protobuf.message import Message

from service.domain.records import TypedPayload

_MessageT = TypeVar("_MessageT", bound=Message)


def payload_of(message: Message) -> TypedPayload:
    """Return a message as a value of the core."""
    return TypedPayload(message.DESCRIPTOR.full_name, message.SerializeToString())


def message_of(payload: TypedPayload, kind: type[_MessageT]) -> _MessageT:
    """Return the message in a payload. Raise ValueError if it is of another type."""
    if payload.kind != kind.DESCRIPTOR.full_name:
        raise ValueError(f"a {payload.kind} where a {kind.DESCRIPTOR.full_name} was expected")
    return kind.FromString(payload.data)
