"""Convert times and enum values from and to protobuf."""

import enum
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

E = TypeVar("E", bound=enum.Enum)
N = TypeVar("N", bound=int)


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return a time for a message's constructor, where None leaves the field unset."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def to_number(value: enum.Enum, number_of: Callable[[str], N], prefix: str) -> N:
    """Return the protobuf value with the same name behind the enum's prefix."""
    return number_of(prefix + value.name)


def from_number(number: int, name_of: Callable[[Any], str], prefix: str, kind: type[E]) -> E:
    """Return the domain's value of the same name. Raises KeyError or ValueError if there is none."""
    return kind[name_of(number).removeprefix(prefix)]
