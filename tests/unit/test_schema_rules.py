"""The rules in the protos: each must compile, which is tried only when a request has the field."""

import contextlib
from collections.abc import Iterator
from typing import Any

import protovalidate
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.unit.test_methods import files

SCALARS: dict[int, Any] = {FieldDescriptor.CPPTYPE_STRING: "x", FieldDescriptor.CPPTYPE_BOOL: True}


def requests() -> list[Descriptor]:
    """What callers and other nodes send."""
    services = (service for file in files() for service in file.services_by_name.values())
    return [method.input_type for service in services for method in service.methods]


def variants(kind: Descriptor, above: tuple[Descriptor, ...] = ()) -> Iterator[Message]:
    """Yield messages in which each field, and each field of each field, is set once."""
    for field in kind.fields:
        for value in values(field, (*above, kind)):
            message = GetMessageClass(kind)()
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                getattr(message, field.name)["x"] = "x"
            elif field.is_repeated:
                getattr(message, field.name).extend([value, value])
            elif field.message_type is not None:
                getattr(message, field.name).CopyFrom(value)
            else:
                setattr(message, field.name, value)
            yield message


def values(field: FieldDescriptor, above: tuple[Descriptor, ...]) -> Iterator[Any]:
    if field.message_type is None:
        yield b"x" if field.type == field.TYPE_BYTES else SCALARS.get(field.cpp_type, 1)
    elif field.message_type not in above:
        yield GetMessageClass(field.message_type)()
        yield from variants(field.message_type, above)


@pytest.mark.parametrize("kind", requests(), ids=lambda kind: str(kind.name))
def test_every_rule_compiles(kind: Descriptor) -> None:
    for message in variants(kind):
        # A wrong value is refused by a rule that has compiled.
        with contextlib.suppress(protovalidate.ValidationError):
            protovalidate.validate(message)
