"""Unpacks a request or a content, by the types that this process knows."""

from collections.abc import Iterable

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from service.domain.call_failures import CallFailure


class DefinitelyNotDone(Exception):
    """The call was not carried out; the message says why, and the kind is the failure that callers see."""

    def __init__(self, message: str, kind: CallFailure | None = None) -> None:
        super().__init__(message)
        self.kind = kind.name if kind else ""


def unpack(packed: Any, kinds: Iterable[type[Message]]) -> Message:
    """Return a message of one of these types. Raise DefinitelyNotDone if it is of none."""
    name = packed.TypeName()
    for kind in kinds:
        if kind.DESCRIPTOR.full_name == name:
            return kind.FromString(packed.value)
    raise DefinitelyNotDone(f"the session's process does not know the type {name!r}")
