"""libpq's password file: `host:port:database:user:password`, a line each, `*` for any."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from zap.worker.v1 import frames_pb2


def password(path: str, servers: Sequence[frames_pb2.Server], database: str, user: str) -> str:
    """The password of the first line that fits one of the servers; empty if there is none, or no file.

    lib/pq cannot look for it by itself: the one host that it knows is the relay.
    """
    file = Path(path) if path else Path.home() / ".pgpass"
    if not os.access(file, os.R_OK):
        return ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        fields = list(_fields(line))
        if len(fields) == 5 and any(_fits(fields, server, database, user) for server in servers):
            return fields[4]
    return ""


def _fits(fields: Sequence[str], server: frames_pb2.Server, database: str, user: str) -> bool:
    host = "localhost" if server.host.startswith("/") else server.host
    wanted = ((host, server.host), (str(server.port),), (database or user,), (user,))
    return all(field == "*" or field in values for field, values in zip(fields, wanted, strict=False))


def _fields(line: str) -> Iterator[str]:
    """Separated by colons; a backslash before a colon or another backslash takes its meaning."""
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
