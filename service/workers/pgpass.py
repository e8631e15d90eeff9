"""Reads libpq's password file: lines of `host:port:database:user:password`, with `*` for any value."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from zap.worker.v1 import frames_pb2


def password(path: str, servers: Sequence[frames_pb2.Server], database: str, user: str) -> str:
    """Return the password of the first line that matches a server; empty if there is none, or no file.

    lib/pq cannot read the file itself, because the only host that it knows is the relay.
    """
    file = Path(path) if path else Path.home() / ".pgpass"
    if not os.access(file, os.R_OK):
        return ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        fields = list(_fields(line))
        if len(fields) == 5 and any(_matches(fields, server, database, user) for server in servers):
            return fields[4]
    return ""


def _matches(fields: Sequence[str], server: frames_pb2.Server, database: str, user: str) -> bool:
    host = "localhost" if server.host.startswith("/") else server.host
    accepted = ((host, server.host), (str(server.port),), (database or user,), (user,))
    return all(field == "*" or field in values for field, values in zip(fields, accepted, strict=False))


def _fields(line: str) -> Iterator[str]:
    """Yield the fields of a line; a backslash escapes a colon or a backslash."""
    field, escaped = "", False
    for character in line:
        if escaped or character not in "\\:":
            field += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            yield field
            field = ""
    yield field
