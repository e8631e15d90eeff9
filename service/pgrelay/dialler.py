"""Dials Postgres for the library's connections, each dial on a thread of its own."""

import random
import socket
import threading
import time
from collections.abc import Callable

from service.pgrelay.framing import StartupKind, first_message
from service.pgrelay.outage_log import OutageLog
from service.pgrelay.upstream import UNREACHABLE, OpenConnection, Upstream
from zap.worker.v1 import frames_pb2

_REDIAL_PAUSE_S = (0.2, 0.3)
"""Seconds between two dials of a server that cannot be reached: shortest and longest."""


class PendingClient:
    """A connection of the library that has no server connection yet."""

    def __init__(self, connection: socket.socket, server: frames_pb2.Server | None) -> None:
        self.connection = connection
        self.server = server
        self.startup = b""
        """The startup message or cancel request, once it is complete."""
        self.is_dialling = False
        self.is_dropped = False
        self._received = b""

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def receive(self, data: bytes) -> StartupKind | None:
        """Return what the client asks for, or None until that is known. Raise NotPostgres."""
        if self.is_dialling:
            return None
        self._received += data
        while (message := first_message(self._received)) is not None:
            kind, self.startup = message
            if kind is not StartupKind.ENCRYPTION:
                return kind
            # Only the connection to the server is encrypted.
            self.connection.send(b"N")
            self._received = self._received[len(self.startup) :]
        return None


class Dialler:
    """Dials servers and sends cancel requests until it is closed."""

    def __init__(
        self,
        upstream: Upstream,
        on_done: Callable[[PendingClient, OpenConnection | None], None],
        log: Callable[[str, str], None],
    ) -> None:
        """`on_done` is called on the dial's thread, with None if the client needs no connection or cannot have one."""
        self._upstream = upstream
        self._on_done = on_done
        self._log = log
        self._outages = OutageLog(log)
        self.is_closed = False

    @property
    def trouble(self) -> str:
        """Why Postgres cannot be reached now; empty if no dial has failed since the last success."""
        return self._outages.last

    def start(self, client: PendingClient, server: frames_pb2.Server, *, is_cancel: bool) -> None:
        """Dial a server for a client, or pass its cancel request on."""
        work = self._cancel if is_cancel else self._dial
        threading.Thread(target=work, args=(client, server), name="relay-dial", daemon=True).start()

    def _dial(self, client: PendingClient, server: frames_pb2.Server) -> None:
        """Dial a server until it answers. Stop without a connection if it fails and another server answers."""
        opened: OpenConnection | None = None
        while not (self.is_closed or client.is_dropped):
            try:
                opened = self._upstream.open(server, client.startup)
            except Exception as error:  # noqa: BLE001 - such as an invalid host name: the outage log reports it
                self._outages.failed(_host_port(server), error)
                if self._is_another_up(server, client.startup):
                    break
                time.sleep(random.uniform(*_REDIAL_PAUSE_S))  # noqa: S311 - jitter
            else:
                self._outages.over()
                break
        self._on_done(client, opened)

    def _is_another_up(self, server: frames_pb2.Server, startup: bytes) -> bool:
        for other in self._upstream.servers:
            if other is not server:
                try:
                    self._upstream.open(other, startup).connection.close()
                except UNREACHABLE as error:
                    self._outages.failed(_host_port(other), error)
                else:
                    return True
        return False

    def _cancel(self, client: PendingClient, server: frames_pb2.Server) -> None:
        try:
            self._upstream.send_cancel(server, client.startup)
        except UNREACHABLE as error:
            self._log("info", f"a query could not be cancelled: {error}")
        self._on_done(client, None)


def _host_port(server: frames_pb2.Server) -> str:
    return f"{server.host}:{server.port}"
