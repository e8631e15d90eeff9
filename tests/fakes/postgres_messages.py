"""Postgres' messages as bytes, for tests that play one side of a connection."""

import struct


def message(kind: str, body: bytes = b"") -> bytes:
    """A message of a connection that is up."""
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def error(severity: str = "ERROR", code: str = "42P01", words: str = "no", **more: str) -> bytes:
    """An ErrorResponse; `more` are its other fields, by their letter."""
    fields = {"S": severity, "V": severity, "C": code, "M": words, **more}
    return message("E", b"".join(f"{key}{value}".encode() + b"\0" for key, value in fields.items()) + b"\0")


def startup(**settings: str) -> bytes:
    """What a client says first."""
    pairs = b"".join(f"{key}\0{value}\0".encode() for key, value in settings.items())
    return struct.pack("!II", len(pairs) + 9, 196608) + pairs + b"\0"


SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSS_REQUEST = struct.pack("!II", 8, 80877104)
CANCEL_REQUEST = struct.pack("!IIII", 16, 80877102, 4711, 815)

AUTHENTICATED = message("R", struct.pack("!I", 0))
PASSWORD_WANTED = message("R", struct.pack("!I", 3))
READY = message("Z", b"I")
IN_TRANSACTION = message("Z", b"T")
QUERY = message("Q", b"SELECT 1\0")
SYNC = message("S")
TERMINATE = message("X")
ROW = message("D", b"\0\1\0\0\0\1x")
PARSED_AND_BOUND = message("1") + message("2") + message("n")
"""How an answer to that begins if no rows come of it."""


def as_lib_pq_asks(text: str, *values: bytes, name: str = "") -> bytes:
    """Parse, Bind, Describe, Execute, Sync (binary_parameters=yes); of the values, one if none is given."""
    bound = [struct.pack("!I", len(value)) + value for value in values or (b"x",)]
    counts = struct.pack("!HH", 0, len(bound))
    return (
        message("P", f"{name}\0{text}\0".encode() + struct.pack("!H", 0))
        + message("B", f"\0{name}\0".encode() + counts + b"".join(bound) + struct.pack("!H", 0))
        + message("D", b"P\0")
        + message("E", b"\0" + struct.pack("!I", 0))
        + SYNC
    )
