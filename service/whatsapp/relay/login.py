"""Logging in to Postgres in the library's place, on a connection that takes over for one that was lost.

Blocks, and runs in a thread of its own. Passwords in the clear, by MD5 and by SCRAM-SHA-256; certificates are for the
TLS below.
"""

import enum
import hashlib
import socket
import struct
import time

from scramp import ScramClient, ScramException

from service.whatsapp.relay.framing import NotPostgres, ServerRefused, read_error
from service.whatsapp.relay.upstream import Opened

_HEADER = struct.Struct("!cI")
_NUMBER = struct.Struct("!I")
_LONGEST = 64 * 1024
_PIECE = 16 * 1024
_MECHANISM = "SCRAM-SHA-256"


class _Wanted(enum.IntEnum):
    """What a server asks for (AuthenticationRequest)."""

    OK = 0
    CLEAR = 3
    MD5 = 5
    SASL = 10
    SASL_CONTINUE = 11
    SASL_FINAL = 12


class CannotLogIn(Exception):
    """The server wants something that is not known here, or is not the one that knows the password."""


def log_in(opened: Opened, startup: bytes, password: str, seconds: float) -> Opened:
    """Until the server takes questions; with what it has said since.

    Raises CannotLogIn, ServerRefused, NotPostgres, OSError.
    """
    opened.connection.setblocking(True)  # noqa: FBT003
    try:
        more = _Login(opened, _user(startup), password, time.monotonic() + seconds).run()
    except ScramException as error:
        raise CannotLogIn(str(error)) from error
    opened.connection.setblocking(False)  # noqa: FBT003
    return Opened(opened.connection, more)


class _Login:
    def __init__(self, opened: Opened, user: str, password: str, end: float) -> None:
        self._connection: socket.socket = opened.connection
        self._heard = opened.said
        self._user = user
        self._password = password
        self._end = end
        self._scram: ScramClient | None = None

    def run(self) -> bytes:
        while True:
            kind, body = self._next()
            match kind:
                case b"R":
                    self._answer(body)
                case b"E":
                    raise ServerRefused(read_error(body))
                case b"Z":
                    return self._heard

    def _answer(self, body: bytes) -> None:
        (wanted,) = _NUMBER.unpack_from(body)
        rest = body[_NUMBER.size :]
        match wanted:
            case _Wanted.OK:
                return
            case _Wanted.CLEAR:
                self._say(self._password.encode() + b"\0")
            case _Wanted.MD5:
                self._say(_md5(self._user, self._password, rest) + b"\0")
            case _Wanted.SASL:
                self._begin_scram(rest)
            case _Wanted.SASL_CONTINUE:
                scram = self._known_scram()
                scram.set_server_first(rest.decode())
                self._say(scram.get_client_final().encode())
            case _Wanted.SASL_FINAL:
                self._known_scram().set_server_final(rest.decode())
            case _:
                raise CannotLogIn(f"the server wants to authenticate in a way that is not known (number {wanted})")

    def _begin_scram(self, offered: bytes) -> None:
        names = [name.decode() for name in offered.split(b"\0") if name]
        if _MECHANISM not in names:
            raise CannotLogIn(f"the server offers {', '.join(names)}")
        # Postgres goes by the name in the startup message and ignores this one, which scramp wants to be there.
        self._scram = ScramClient([_MECHANISM], self._user or "-", self._password)
        first = self._scram.get_client_first().encode()
        self._say(_MECHANISM.encode() + b"\0" + _NUMBER.pack(len(first)) + first)

    def _known_scram(self) -> ScramClient:
        if self._scram is None:
            raise NotPostgres("a login that goes on before it began")
        return self._scram

    def _say(self, body: bytes) -> None:
        self._wait_no_longer()
        self._connection.sendall(_HEADER.pack(b"p", len(body) + _NUMBER.size) + body)

    def _next(self) -> tuple[bytes, bytes]:
        while True:
            if len(self._heard) >= _HEADER.size:
                kind, length = _HEADER.unpack_from(self._heard)
                if not _NUMBER.size <= length <= _LONGEST:
                    raise NotPostgres(f"a message of {length} bytes during the login")
                if len(self._heard) > length:
                    body = self._heard[_HEADER.size : 1 + length]
                    self._heard = self._heard[1 + length :]
                    return kind, body
            self._wait_no_longer()
            if not (piece := self._connection.recv(_PIECE)):
                raise ConnectionError("the server closed the connection during the login")
            self._heard += piece

    def _wait_no_longer(self) -> None:
        if (left := self._end - time.monotonic()) <= 0:
            raise TimeoutError("the login took too long")
        self._connection.settimeout(left)


def _md5(user: str, password: str, salt: bytes) -> bytes:
    inner = hashlib.md5(password.encode() + user.encode(), usedforsecurity=False).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode()


def _user(startup: bytes) -> str:
    """Whom a startup message names."""
    words = startup[8:].split(b"\0")
    return dict(zip(words[::2], words[1::2], strict=False)).get(b"user", b"").decode(errors="replace")
