"""A relay in the process of the test, and what it has to say."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from service.pgrelay.ack_gate import AckGate
from service.pgrelay.relay import Relay
from tests.eventually import eventually_in_thread
from zap.worker.v1 import frames_pb2

PATIENCE = 10.0


class Relayed:
    """`with Relayed(database) as relay:` relays until the end of the block."""

    def __init__(
        self, database: frames_pb2.Database, answer_timeout: float | None = 15.0, url: str = "postgres:///db?a=b"
    ) -> None:
        self.losses: list[str] = []
        self.lines: list[tuple[str, str]] = []
        self.gate = AckGate(lambda level, words: self.lines.append((level, words)))
        self.relay = Relay(
            database,
            url,
            self.gate,
            self.losses.append,
            lambda level, words: self.lines.append((level, words)),
            answer_timeout,
        )
        query = parse_qs(urlsplit(self.relay.address).query)
        self.host: str = unquote(query["host"][0]).split(",")[0]
        """As lib/pq has it: with an @."""
        self.ports = [int(port) for port in query["port"][0].split(",")]

    def __enter__(self) -> Self:
        self.relay.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.relay.close()

    def connect(self, door: int = 1) -> socket.socket:
        """A connection as the library makes it; it waits for `PATIENCE` seconds."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE)
        connection.connect(f"\0{self.host[1:]}/.s.PGSQL.{door}")
        return connection

    def lost(self) -> str:
        """Why the relay gave up, once it has."""
        eventually_in_thread(lambda: bool(self.losses), "a loss")
        return self.losses[0]


def receive(connection: socket.socket, size: int) -> bytes:
    """As much, or less if the end comes first. (MSG_WAITALL does not wait on a socket with a timeout.)"""
    received = b""
    while len(received) < size and (piece := connection.recv(size - len(received))):
        received += piece
    return received


def is_silent(connection: socket.socket, seconds: float = 0.5) -> bool:
    """Whether nothing comes for so long, not even an end."""
    connection.settimeout(seconds)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(PATIENCE)
    return False


def at(*ports: int, **settings: object) -> frames_pb2.Database:
    """A database of servers on ports of this machine, without TLS."""
    servers = [frames_pb2.Server(host="127.0.0.1", port=port) for port in ports]
    return frames_pb2.Database(servers=servers, tls=frames_pb2.Tls(mode="disable"), **settings)  # type: ignore[arg-type]
