"""Reads the statements of queries.sql by name."""

import functools
import importlib.resources
import re


@functools.cache
def _statements() -> dict[str, str]:
    text = importlib.resources.files("service.store").joinpath("queries.sql").read_text()
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)[1:]
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError("queries.sql names a statement twice")
    return {name: body.strip() for name, body in zip(names, bodies, strict=True)}


def statement(name: str) -> str:
    """Return the statement of this name. Raises KeyError."""
    return _statements()[name]
