"""Opens connections to the servers behind the relay, with TLS as in libpq, up to the first authentication request.

All functions block; the relay calls them in a thread for each dial.
"""

import ipaddress
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.pgrelay.framing import SSL_REQUEST_CODE, NotPostgres, ServerRefused, StartupHandshake
from zap.worker.v1 import frames_pb2

CONNECT_TIMEOUT_S = 2.0
"""Seconds for the TCP connect: a new attempt finds a recovered server sooner than the kernel's next SYN."""
ANSWER_TIMEOUT_S = 15.0
"""Seconds for all that follows, unless the address sets connect_timeout."""

_KEEPALIVE = {
    "TCP_KEEPIDLE": 30,  # seconds
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 15_000,  # milliseconds in which what was sent must be acknowledged
}
_TLS_VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
_SSL_REQUEST = struct.pack("!II", 8, SSL_REQUEST_CODE)
_READ_BYTES = 64 * 1024

#: What a dial raises if the server cannot be reached, refuses or does not speak the protocol.
UNREACHABLE = (OSError, NotPostgres, ServerRefused)

_AUTHORIZATION_CLASS = "28"
"""SQLSTATE class of a refusal, such as that of a connection with or without TLS."""


@dataclass(frozen=True)
class OpenConnection:
    """A connection whose server waits for an answer to its greeting."""

    connection: socket.socket
    greeting: bytes = field(repr=False)


class Upstream:
    """Dials the servers of one database; `servers` is in the order of the address."""

    def __init__(self, database: frames_pb2.Database) -> None:
        self.servers = tuple(database.servers)
        self._timeout_s = database.connect_timeout or ANSWER_TIMEOUT_S
        self._tls = _Tls(database.tls)

    def open(self, server: frames_pb2.Server, startup: bytes) -> OpenConnection:
        """Connect, send the startup message and wait for the greeting. Raise the exceptions in UNREACHABLE."""
        refused: Exception | None = None
        for encrypted in self._tls.encryption_modes(server):
            try:
                return self._open(server, startup, encrypted=encrypted)
            except (ssl.SSLError, _NoTls) as error:
                refused = error
            except ServerRefused as error:
                if not error.error.code.startswith(_AUTHORIZATION_CLASS):
                    raise
                refused = error
        raise refused or ConnectionError("no way to connect")

    def send_cancel(self, server: frames_pb2.Server, cancel: bytes) -> None:
        """Send a cancel request and wait until the server closes the connection. Raise OSError."""
        deadline = time.monotonic() + self._timeout_s
        with self._connect(server, encrypted=self._tls.encryption_modes(server)[0], deadline=deadline) as connection:
            connection.sendall(cancel)
            while connection.recv(_READ_BYTES):
                pass

    def _open(self, server: frames_pb2.Server, startup: bytes, *, encrypted: bool) -> OpenConnection:
        deadline = time.monotonic() + self._timeout_s
        connection = self._connect(server, encrypted=encrypted, deadline=deadline)
        with _closed_on_failure(connection):
            _set_timeout(connection, deadline)
            connection.sendall(startup)
            greeting = _read_greeting(connection, deadline)
            connection.setblocking(False)  # noqa: FBT003
        return OpenConnection(connection, greeting)

    def _connect(self, server: frames_pb2.Server, *, encrypted: bool, deadline: float) -> socket.socket:
        connection = _dial(server, min(self._timeout_s, CONNECT_TIMEOUT_S))
        with _closed_on_failure(connection):
            _set_timeout(connection, deadline)
            return self._tls.encrypt(connection, server) if encrypted else connection


@contextmanager
def _closed_on_failure(connection: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _read_greeting(connection: socket.socket, deadline: float) -> bytes:
    greeting = StartupHandshake()
    while not greeting.is_whole:
        _set_timeout(connection, deadline)
        if not (data := connection.recv(_READ_BYTES)):
            raise ConnectionError("the server closed the connection instead of answering")
        greeting.feed(data)
    return greeting.said


def _dial(server: frames_pb2.Server, timeout: float) -> socket.socket:
    if (path := unix_path(server)) is not None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _closed_on_failure(connection):
            connection.settimeout(timeout)
            connection.connect(path)
        return connection
    connection = socket.create_connection((server.host, server.port), timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return connection


def unix_path(server: frames_pb2.Server) -> str | None:
    """Return the path of a server's Unix socket, abstract if the host begins with @; None for a TCP server."""
    if not server.host.startswith(("/", "@")):
        return None
    path = f"{server.host}/.s.PGSQL.{server.port}"
    return "\0" + path[1:] if path.startswith("@") else path


def _set_timeout(connection: socket.socket, deadline: float) -> None:
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError("the server did not answer in time")
    connection.settimeout(left)


class _NoTls(ConnectionError):
    """The server does not support TLS, and the settings require it."""


class _Tls:
    """Applies libpq's TLS settings."""

    def __init__(self, settings: frames_pb2.Tls) -> None:
        self._settings = settings
        self._mode = settings.mode or "prefer"
        self._cached: tuple[Sequence[object], ssl.SSLContext] | None = None

    def encryption_modes(self, server: frames_pb2.Server) -> Sequence[bool]:
        """Return whether each attempt is encrypted, in order."""
        if unix_path(server) is not None:
            return (False,)
        return {"disable": (False,), "allow": (False, True), "prefer": (True, False)}.get(self._mode, (True,))

    def encrypt(self, connection: socket.socket, server: frames_pb2.Server) -> socket.socket:
        """Negotiate TLS. Return the plain connection if the server has no TLS and the mode is `prefer`."""
        if not self._settings.direct:
            connection.sendall(_SSL_REQUEST)
            # Exactly one byte: plain bytes injected after it must not pass for encrypted ones.
            answer = connection.recv(1)
            if answer == b"N" and self._mode == "prefer":
                return connection
            if not answer:
                raise ConnectionError("the server closed the connection when it was asked for TLS")
            if answer != b"S":
                raise _NoTls("the server does not speak TLS")
        context = self._context()
        name = server.host if context.check_hostname or self._sends_name(server.host) else None
        return context.wrap_socket(connection, server_hostname=name)

    def _sends_name(self, host: str) -> bool:
        """Return whether to send the host in the SNI extension; addresses are never sent."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return not self._settings.hides_name
        return False

    def _context(self) -> ssl.SSLContext:
        """Return the context, rebuilt if one of its files has changed, since the process may outlive a certificate."""
        root = self._settings.root_certificate or _default("root.crt")
        certificate = self._settings.certificate or _default("postgresql.crt")
        key = self._settings.key or _default("postgresql.key")
        files = (root, certificate, key, self._settings.revoked)
        state = [_modified(path) for path in files if path not in {"", "system"}]
        if self._cached is None or self._cached[0] != state:
            self._cached = state, self._make_context(root, certificate, key)
        return self._cached[1]

    def _make_context(self, root: str, certificate: str, key: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = _TLS_VERSIONS.get(self._settings.oldest, ssl.TLSVersion.TLSv1_2)
        if newest := _TLS_VERSIONS.get(self._settings.newest):
            context.maximum_version = newest
        if self._settings.direct:
            context.set_alpn_protocols(["postgresql"])
        self._trust(context, root)
        if certificate:
            context.load_cert_chain(certificate, key or None, self._settings.key_password)
        return context

    def _trust(self, context: ssl.SSLContext, root: str) -> None:
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


def _default(name: str) -> str:
    """Return libpq's default path of a file; empty if there is no such file."""
    path = Path.home() / ".postgresql" / name
    return str(path) if path.is_file() else ""


def _modified(path: str) -> tuple[str, int]:
    file = Path(path)
    return path, file.stat().st_mtime_ns if file.exists() else 0
