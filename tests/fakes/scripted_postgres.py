"""A server that does with each connection what a test wants: for what a real Postgres does only when it is unwell."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from tests.fakes.postgres_messages import AUTHENTICATED, READY

Script = Callable[[socket.socket], None]


class ScriptedPostgres:
    """Listens on a port of 127.0.0.1; the n-th connection gets the n-th script, further ones the last."""

    def __init__(self, *scripts: Script, port: int = 0) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing it alone does not wake up who waits for a connection.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(len(self.connections), len(self._scripts) - 1)]
            self.connections.append(connection)
            thread = threading.Thread(target=self._play, args=(script, connection), daemon=True)
            self._threads.append(thread)
            thread.start()

    @staticmethod
    def _play(script: Script, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            script(connection)


def read_startup(connection: socket.socket) -> bytes:
    """The first message of a client."""
    length = connection.recv(4, socket.MSG_WAITALL)
    return length + connection.recv(struct.unpack("!I", length)[0] - 4, socket.MSG_WAITALL)


def hang_up(connection: socket.socket) -> None:
    """Close it before anything was said."""
    connection.shutdown(socket.SHUT_RDWR)


def reset(connection: socket.socket) -> None:
    """Let the client have a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def keep_silent(connection: socket.socket) -> None:
    """Take what comes, and say nothing."""
    while connection.recv(65536):
        pass


def say(*answers: bytes) -> Script:
    """Wait for the startup message, answer it, and take what comes."""

    def script(connection: socket.socket) -> None:
        read_startup(connection)
        for answer in answers:
            connection.sendall(answer)
        keep_silent(connection)

    return script


def refuse(answer: bytes) -> Script:
    """Wait for the startup message, answer it, and hang up, as Postgres does with an error."""

    def script(connection: socket.socket) -> None:
        read_startup(connection)
        connection.sendall(answer)
        hang_up(connection)

    return script


WELCOME: Sequence[bytes] = (AUTHENTICATED, READY)
welcome = say(*WELCOME)
