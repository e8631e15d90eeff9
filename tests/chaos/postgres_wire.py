"""As much of Postgres's protocol (version 3) as a pooler's stand-in and its test need: frames, log-in, errors."""

import asyncio
import base64
import hashlib
import hmac
import secrets
import struct
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_VERSION = 196608
_AUTHENTICATION_OK, _CLEARTEXT, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 10, 11, 12


class Frame(NamedTuple):
    """One message: its type, and what follows its length."""

    kind: bytes
    body: bytes

    def encoded(self) -> bytes:
        """As it goes over the wire."""
        return self.kind + struct.pack("!i", len(self.body) + 4) + self.body


class ServerError(Exception):
    """What an ErrorResponse says."""

    def __init__(self, severity: str, code: str, message: str) -> None:
        super().__init__(f"{severity} {code}: {message}")
        self.words = severity, code, message

    def frame(self) -> Frame:
        """As a server sends it."""
        severity, code, message = self.words
        fields = {"S": severity, "V": severity, "C": code, "M": message}
        return Frame(b"E", b"".join(f"{key}{value}\0".encode() for key, value in fields.items()) + b"\0")


def error_of(frame: Frame) -> ServerError:
    """What an ErrorResponse says."""
    fields = {part[:1]: part[1:].decode() for part in frame.body.split(b"\0") if part}
    return ServerError(fields[b"S"], fields[b"C"], fields[b"M"])


def startup(settings: Mapping[str, str]) -> bytes:
    """The first message of a client: user, database, and what else it wants."""
    body = struct.pack("!i", _VERSION) + b"".join(f"{k}\0{v}\0".encode() for k, v in settings.items()) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def query(text: str) -> bytes:
    """A simple query."""
    return Frame(b"Q", text.encode() + b"\0").encoded()


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next message. Raises IncompleteReadError at the end."""
    header = await reader.readexactly(5)
    return Frame(header[:1], await reader.readexactly(struct.unpack("!i", header[1:])[0] - 4))


def startup_settings(message: bytes) -> dict[str, str]:
    """What a first message asks for; the inverse of `startup`."""
    words = message[8:].decode().split("\0")
    return {key: value for key, value in zip(words[::2], words[1::2], strict=False) if key}


async def read_startup(reader: asyncio.StreamReader) -> bytes:
    """The first message of a client, which has no type; whole."""
    length = await reader.readexactly(4)
    return length + await reader.readexactly(struct.unpack("!i", length)[0] - 4)


class Connected(NamedTuple):
    """A connection that is logged in and waits for queries."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    greeting: list[Frame]
    """What the server said of itself: ParameterStatus and BackendKeyData."""


async def connect(url: SplitResult, **settings: str) -> Connected:
    """Log in with SCRAM or a password, without TLS. Raises OSError, IncompleteReadError or ServerError."""
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(startup({"user": url.username or "", "database": url.path.lstrip("/"), **settings}))
        await _log_in(reader, writer, url)
        greeting = []
        while (frame := await _next(reader)).kind != b"Z":
            greeting.append(frame)
    except BaseException:
        writer.transport.abort()
        raise
    return Connected(reader, writer, greeting)


async def _log_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: SplitResult) -> None:
    scram = _Scram(url.password or "")
    while True:
        frame = await _next(reader)
        (what,) = struct.unpack("!i", frame.body[:4])
        if what == _AUTHENTICATION_OK:
            return
        if what == _CLEARTEXT:
            writer.write(Frame(b"p", (url.password or "").encode() + b"\0").encoded())
        elif what == _SASL:
            first = scram.first()
            writer.write(Frame(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first).encoded())
        elif what == _SASL_CONTINUE:
            writer.write(Frame(b"p", scram.final(frame.body[4:])).encoded())
        elif what != _SASL_FINAL:
            raise NotImplementedError(f"authentication request {what}")


async def _next(reader: asyncio.StreamReader) -> Frame:
    frame = await read_frame(reader)
    if frame.kind == b"E":
        raise error_of(frame)
    return frame


class _Scram:
    """The client's side of SCRAM-SHA-256 (RFC 7677), without channel binding."""

    def __init__(self, password: str) -> None:
        self._password = password.encode()
        self._bare = f"n=,r={secrets.token_urlsafe(18)}"

    def first(self) -> bytes:
        return f"n,,{self._bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        said: Mapping[str, str] = dict(part.split("=", 1) for part in challenge.decode().split(","))
        salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(said["s"]), int(said["i"]))
        key = hmac.digest(salted, b"Client Key", "sha256")
        bare = f"c=biws,r={said['r']}"
        signed = f"{self._bare},{challenge.decode()},{bare}".encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return f"{bare},p={base64.b64encode(proof).decode()}".encode()
