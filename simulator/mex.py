"""mex: queries that are JSON inside a stanza, named by a number, and updates of the same form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from simulator.accounts import Device
from simulator.binary_xml import Node, node

Variables = Mapping[str, object]
#: Takes the device that asks and the variables, and returns the data. Raises MexFailed.
MexHandler = Callable[[Device, Variables], Mapping[str, object]]


class MexFailed(ValueError):
    """The query is answered with an error inside a result."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def update(name: str, data: object) -> Node:
    """Return an update for a notification."""
    return node("update", {"op_name": name}, json.dumps({"data": {name: data}}).encode())
