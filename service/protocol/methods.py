"""Reads what the protos state about each RPC: the option (zap.v1.rules)."""

from collections.abc import Iterator, Mapping

from google.protobuf.descriptor import FileDescriptor

from zap.node.v1 import node_pb2
from zap.v1 import (
    call_service_pb2,
    contact_pb2,
    group_service_pb2,
    media_pb2,
    message_pb2,
    options_pb2,
    presence_service_pb2,
    profile_pb2,
    session_pb2,
    watch_pb2,
)
from zap.v1.options_pb2 import MethodRules


def rules_in(file: FileDescriptor) -> Iterator[tuple[str, MethodRules]]:
    """Yield each method of a proto, as service/method, with its rules. Raise ValueError if it states none."""
    for service in file.services_by_name.values():
        for method in service.methods:
            rules = method.GetOptions().Extensions[options_pb2.rules]
            if rules.effect == options_pb2.EFFECT_UNSPECIFIED:
                raise ValueError(f"{method.full_name} in {file.name} states no effect in the option (zap.v1.rules)")
            yield f"{service.full_name}/{method.name}", rules


_FILES = (
    session_pb2,
    message_pb2,
    watch_pb2,
    node_pb2,
    contact_pb2,
    profile_pb2,
    presence_service_pb2,
    call_service_pb2,
    group_service_pb2,
    media_pb2,
)
METHOD_RULES: Mapping[str, MethodRules] = {name: rules for file in _FILES for name, rules in rules_in(file.DESCRIPTOR)}
"""The rules of every method of zap.v1 and zap.node.v1."""
OWNER_METHODS = frozenset(name for name, rules in METHOD_RULES.items() if rules.needs_owner)
"""Methods that the session's process carries out."""
REPEATABLE_METHODS = frozenset(
    name for name, rules in METHOD_RULES.items() if rules.effect != options_pb2.EFFECT_CHANGES
)
"""Methods that may be called again when an answer was lost."""
FREQUENT_METHODS = frozenset(name for name, rules in METHOD_RULES.items() if rules.is_frequent)
"""Methods that only read, and that callers call often."""
