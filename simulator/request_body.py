"""Parses and validates requests to the control interface."""

from __future__ import annotations

import base64
import json
from enum import StrEnum
from typing import TypeVar

from aiohttp import web

from simulator import stanzas
from simulator.binary_xml import Node
from simulator.faults import Target

Choice = TypeVar("Choice", bound=StrEnum)


class BadInput(ValueError):
    """The request is invalid; the message names the fault."""


class Body:
    """The fields of a request. Each method returns one field and raises BadInput if it is invalid."""

    def __init__(self, fields: dict[str, object]) -> None:
        self._fields = fields

    @classmethod
    async def read(cls, request: web.Request) -> Body:
        """Return the request's JSON object. An empty body counts as an empty object."""
        text = await request.text()
        try:
            fields = json.loads(text) if text.strip() else {}
        except ValueError as error:
            raise BadInput(f"the body is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise BadInput("the body is not a JSON object")
        return cls(fields)

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text, which is required unless there is a default."""
        value = self._fields.get(name, default)
        if not isinstance(value, str):
            raise BadInput(f"{name}: a text is required")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text or None."""
        return None if self._fields.get(name) is None else self.text(name)

    def integer(self, name: str, default: int | None = None, *, least: int = 0) -> int:
        """Return an integer, which is required unless there is a default."""
        value = self._fields.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise BadInput(f"{name}: a whole number of at least {least} is required")
        return value

    def optional_integer(self, name: str, *, least: int = 0) -> int | None:
        """Return an integer or None."""
        return None if self._fields.get(name) is None else self.integer(name, least=least)

    def seconds(self, name: str) -> float:
        """Return a duration in seconds."""
        value = self._fields.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 3600:
            raise BadInput(f"{name}: seconds between 0 and 3600 are required")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a boolean."""
        value = self._fields.get(name, default)
        if not isinstance(value, bool):
            raise BadInput(f"{name}: true or false is required")
        return value

    def choice(self, name: str, kind: type[Choice], default: Choice) -> Choice:
        """Return a member of an enumeration."""
        return choose(name, kind, self.text(name, default.value))

    def has(self, name: str) -> bool:
        """Return whether the request has a field."""
        return name in self._fields

    def texts_by_name(self, name: str) -> dict[str, str]:
        """Return an object of texts, which is empty if missing."""
        value = self._fields.get(name, {})
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise BadInput(f"{name}: an object of texts is required")
        return value

    def texts(self, name: str, default: list[str] | None = None) -> list[str]:
        """Return a list of texts, which is required unless there is a default."""
        value = self._fields.get(name, default)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadInput(f"{name}: a list of texts is required")
        return value

    def data(self, name: str) -> bytes:
        """Return bytes, which the request has in base64."""
        return base64.b64decode(self.text(name), validate=True)

    def stanza(self, name: str) -> Node:
        """Return a stanza (stanzas.py)."""
        return stanzas.from_json(self._fields.get(name))

    def target(self, name: str = "target") -> Target:
        """Return the selected devices; all if the field is missing."""
        return Target(self.text(name, ""))

    def times(self) -> int | None:
        """Return how often a fault is to occur: once if missing, and until cleared if null."""
        return self.integer("times", 1, least=1) if self._fields.get("times", 1) is not None else None


def choose(name: str, kind: type[Choice], text: str) -> Choice:
    """Return the member of an enumeration with this name."""
    try:
        return kind(text)
    except ValueError:
        raise BadInput(f"{name}: one of {', '.join(member.value for member in kind)} is required") from None
