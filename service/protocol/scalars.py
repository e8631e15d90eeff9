"""Moments and enum values, from and to protobuf."""

import enum
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

E = TypeVar("E", bound=enum.Enum)
N = TypeVar("N", bound=int)


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment for a message's constructor, where None leaves the field unset."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def to_number(value: enum.Enum, number_of: Callable[[str], N], prefix: str) -> N:
    """The protobuf value that has the same name with the enum's prefix."""
    return number_of(prefix + value.name)


def from_number(number: int, name_of: Callable[[Any], str], prefix: str, kind: type[E]) -> E:
    """The domain's value of the same name. Raises KeyError or ValueError if it has none."""
    return kind[name_of(number).removeprefix(prefix)]
