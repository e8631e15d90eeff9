"""What a request to the control interface says, checked as it is taken."""

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
    """A request that says something impossible; the message says what."""


class Body:
    """The fields of a request, each checked as it is taken."""

    def __init__(self, fields: dict[str, object]) -> None:
        self._fields = fields

    @classmethod
    async def read(cls, request: web.Request) -> Body:
        """The request's JSON object; nothing at all is an empty one."""
        text = await request.text()
        try:
            fields = json.loads(text) if text.strip() else {}
        except ValueError as error:
            raise BadInput(f"the body is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise BadInput("the body is not a JSON object")
        return cls(fields)

    def text(self, name: str, default: str | None = None) -> str:
        """A text; required unless there is a default."""
        value = self._fields.get(name, default)
        if not isinstance(value, str):
            raise BadInput(f"{name}: a text is required")
        return value

    def optional_text(self, name: str) -> str | None:
        """A text or nothing."""
        return None if self._fields.get(name) is None else self.text(name)

    def integer(self, name: str, default: int | None = None, *, least: int = 0) -> int:
        """A whole number; required unless there is a default."""
        value = self._fields.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise BadInput(f"{name}: a whole number of at least {least} is required")
        return value

    def optional_integer(self, name: str, *, least: int = 0) -> int | None:
        """A whole number or nothing."""
        return None if self._fields.get(name) is None else self.integer(name, least=least)

    def seconds(self, name: str) -> float:
        """A duration."""
        value = self._fields.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 3600:
            raise BadInput(f"{name}: seconds between 0 and 3600 are required")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self._fields.get(name, default)
        if not isinstance(value, bool):
            raise BadInput(f"{name}: true or false is required")
        return value

    def choice(self, name: str, kind: type[Choice], default: Choice) -> Choice:
        """One of a few words."""
        return choose(name, kind, self.text(name, default.value))

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        value = self._fields.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadInput(f"{name}: a list of texts is required")
        return value

    def data(self, name: str) -> bytes:
        """Bytes, in base64."""
        return base64.b64decode(self.text(name), validate=True)

    def stanza(self, name: str) -> Node:
        """A stanza (stanzas.py)."""
        return stanzas.from_json(self._fields.get(name))

    def target(self, name: str = "target") -> Target:
        """Which devices are meant; all of them if it is not said."""
        return Target(self.text(name, ""))

    def times(self) -> int | None:
        """How often something is to happen: once if it is not said, null for until cleared."""
        return self.integer("times", 1, least=1) if self._fields.get("times", 1) is not None else None


def choose(name: str, kind: type[Choice], text: str) -> Choice:
    """The member of a choice that this text names."""
    try:
        return kind(text)
    except ValueError:
        raise BadInput(f"{name}: one of {', '.join(member.value for member in kind)} is required") from None
