"""The servers behind the relay: how one is reached, with TLS as libpq understands it, up to its first request to
authenticate.

Everything here blocks, and runs in a thread of its own.
"""

import ipaddress
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.pgrelay.framing import ENCRYPTION, NotPostgres, ServerRefused, StartupHandshake
from zap.worker.v1 import frames_pb2

CONNECT_SECONDS = 2.0
"""For TCP alone: a connect that is tried again finds a server that is back sooner than the kernel's next SYN."""
ANSWER_SECONDS = 15.0
"""For all that follows, unless the address names a bound of its own (connect_timeout)."""

_KEEPALIVE = {
    "TCP_KEEPIDLE": 30,  # seconds
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 15_000,  # milliseconds in which what was sent must be acknowledged
}
_SSL_REQUEST = struct.pack("!II", 8, min(ENCRYPTION))
_PIECE = 64 * 1024

#: Everything by which a server can be out of reach, or not be one.
UNREACHABLE = (OSError, NotPostgres, ServerRefused)

_NO_ENTRY = "28"
"""Class of what a server says to a connection that has TLS and should not have it, or the other way round."""


@dataclass(frozen=True)
class OpenConnection:
    """A connection on which a server waits for an answer to what it said."""

    connection: socket.socket
    said: bytes = field(repr=False)


class Upstream:
    """The servers, in the order in which they are to be tried."""

    def __init__(self, database: frames_pb2.Database) -> None:
        self.servers = tuple(database.servers)
        self._seconds = database.connect_timeout or ANSWER_SECONDS
        self._tls = _Tls(database.tls)

    def open(self, server: frames_pb2.Server, startup: bytes) -> OpenConnection:
        """Say the startup message to a server; returns once it waits for an answer. Raises what is in UNREACHABLE."""
        refused: Exception | None = None
        for encrypted in self._tls.ways(server):
            try:
                return self._open(server, startup, encrypted=encrypted)
            except (ssl.SSLError, _NoTls) as error:
                refused = error
            except ServerRefused as error:
                if not error.error.code.startswith(_NO_ENTRY):
                    raise
                refused = error
        raise refused or ConnectionError("no way to connect")

    def say(self, server: frames_pb2.Server, cancel: bytes) -> None:
        """Have a server cancel something; it closes the connection and says nothing. Raises OSError."""
        with self._connect(server, encrypted=self._tls.ways(server)[0], end=self._end()) as connection:
            connection.sendall(cancel)
            while connection.recv(_PIECE):
                pass

    def _end(self) -> float:
        return time.monotonic() + self._seconds

    def _open(self, server: frames_pb2.Server, startup: bytes, *, encrypted: bool) -> OpenConnection:
        end = self._end()
        connection = self._connect(server, encrypted=encrypted, end=end)
        try:
            _bound(connection, end)
            connection.sendall(startup)
            said = _hear_greeting(connection, end)
            connection.setblocking(False)  # noqa: FBT003
        except BaseException:
            connection.close()
            raise
        return OpenConnection(connection, said)

    def _connect(self, server: frames_pb2.Server, *, encrypted: bool, end: float) -> socket.socket:
        connection = _dial(server, min(self._seconds, CONNECT_SECONDS))
        try:
            _bound(connection, end)
            return self._tls.encrypt(connection, server) if encrypted else connection
        except BaseException:
            connection.close()
            raise


def _hear_greeting(connection: socket.socket, end: float) -> bytes:
    greeting = StartupHandshake()
    while not greeting.is_whole:
        _bound(connection, end)
        if not (piece := connection.recv(_PIECE)):
            raise ConnectionError("the server closed the connection instead of answering")
        greeting.feed(piece)
    return greeting.said


def _dial(server: frames_pb2.Server, timeout: float) -> socket.socket:
    if (path := unix_path(server)) is not None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(path)
        except BaseException:
            connection.close()
            raise
        return connection
    connection = socket.create_connection((server.host, server.port), timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return connection


def unix_path(server: frames_pb2.Server) -> str | None:
    """The address of a server's Unix socket (abstract behind an @), if that is where it is."""
    if not server.host.startswith(("/", "@")):
        return None
    path = f"{server.host}/.s.PGSQL.{server.port}"
    return "\0" + path[1:] if path.startswith("@") else path


def _bound(connection: socket.socket, end: float) -> None:
    if (left := end - time.monotonic()) <= 0:
        raise TimeoutError("the server did not answer in time")
    connection.settimeout(left)


class _NoTls(ConnectionError):
    """The server speaks no TLS, and must."""


class _Tls:
    """What libpq's settings mean."""

    def __init__(self, settings: frames_pb2.Tls) -> None:
        self._settings = settings
        self._mode = settings.mode or "prefer"
        self._made: tuple[Sequence[object], ssl.SSLContext] | None = None

    def ways(self, server: frames_pb2.Server) -> Sequence[bool]:
        """Whether to try it encrypted, in order."""
        if unix_path(server) is not None:
            return (False,)
        return {"disable": (False,), "allow": (False, True), "prefer": (True, False)}.get(self._mode, (True,))

    def encrypt(self, connection: socket.socket, server: frames_pb2.Server) -> socket.socket:
        """Ask for TLS and shake hands. With `prefer`, a server that has none goes on in the clear."""
        if not self._settings.direct:
            connection.sendall(_SSL_REQUEST)
            # One byte and no more: what somebody put in behind it must not be taken for what came encrypted.
            answer = connection.recv(1)
            if answer == b"N" and self._mode == "prefer":
                return connection
            if not answer:
                raise ConnectionError("the server closed the connection when it was asked for TLS")
            if answer != b"S":
                raise _NoTls("the server does not speak TLS")
        context = self._context()
        name = server.host if context.check_hostname or self._names(server.host) else None
        return context.wrap_socket(connection, server_hostname=name)

    def _names(self, host: str) -> bool:
        """Whether the server is to be told by which name it is meant. An address is no name."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return not self._settings.hides_name
        return False

    def _context(self) -> ssl.SSLContext:
        """Made anew when one of its files was replaced: this process may live longer than a certificate."""
        state = [_stamp(path) for path in self._files()]
        if self._made is None or self._made[0] != state:
            self._made = state, self._make_context()
        return self._made[1]

    def _files(self) -> Sequence[str]:
        return [
            path
            for path in (self._root(), self._certificate(), self._key(), self._settings.revoked)
            if path not in {"", "system"}
        ]

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = _version(self._settings.oldest) or ssl.TLSVersion.TLSv1_2
        if newest := _version(self._settings.newest):
            context.maximum_version = newest
        if self._settings.direct:
            context.set_alpn_protocols(["postgresql"])
        self._trust(context)
        if certificate := self._certificate():
            context.load_cert_chain(certificate, self._key() or None, self._settings.key_password)
        return context

    def _trust(self, context: ssl.SSLContext) -> None:
        root = self._root()
        context.check_hostname = self._mode == "verify-full"
        # As in libpq, a root certificate makes `require` as strict as `verify-ca`.
        if not self._mode.startswith("verify-") and not (self._mode == "require" and root):
            context.verify_mode = ssl.CERT_NONE
            return
        context.verify_mode = ssl.CERT_REQUIRED
        if root in {"", "system"}:
            context.load_default_certs()
        else:
            context.load_verify_locations(root)
        if self._settings.revoked:
            context.load_verify_locations(self._settings.revoked)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN

    def _root(self) -> str:
        return self._settings.root_certificate or _default("root.crt")

    def _certificate(self) -> str:
        return self._settings.certificate or _default("postgresql.crt")

    def _key(self) -> str:
        return self._settings.key or _default("postgresql.key")


def _default(name: str) -> str:
    path = Path.home() / ".postgresql" / name
    return str(path) if path.is_file() else ""


def _stamp(path: str) -> tuple[str, int]:
    file = Path(path)
    return path, file.stat().st_mtime_ns if file.exists() else 0


def _version(name: str) -> ssl.TLSVersion | None:
    return {
        "TLSv1": ssl.TLSVersion.TLSv1,
        "TLSv1.1": ssl.TLSVersion.TLSv1_1,
        "TLSv1.2": ssl.TLSVersion.TLSv1_2,
        "TLSv1.3": ssl.TLSVersion.TLSv1_3,
    }.get(name)
