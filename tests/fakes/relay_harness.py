"""A splice of the relay's between two ends that a test holds."""

from __future__ import annotations

import socket

from service.pgrelay.ack_gate import AckGate
from service.pgrelay.interceptor import Interceptor
from service.pgrelay.proxy_session import Lost, ProxySession
from service.pgrelay.signal_lock import SignalLock
from tests.fakes.postgres_messages import PASSWORD_WANTED, READY, message


class Line:
    """A splice with somebody at either end, on a clock that stands still."""

    def __init__(
        self,
        said: bytes = PASSWORD_WANTED,
        lock: SignalLock | None = None,
        clearings: list[bytes] | None = None,
        gate: AckGate | None = None,
    ) -> None:
        self.now = 100.0
        self.client, client_end = socket.socketpair()
        self.server, server_end = socket.socketpair()
        for end in (self.client, self.server, client_end, server_end):
            end.setblocking(False)
        self.gate = gate or AckGate(lambda *_: None)
        self.lock = lock or SignalLock(lambda *_: None)
        self.splice = ProxySession(
            client_end,
            server_end,
            said,
            Interceptor(self.gate, self.lock, clearings if clearings is not None else []),
            lambda: self.now,
        )

    def log_in(self) -> None:
        """Get the startup behind it."""
        self.splice.pump()
        assert self.heard(self.client) == PASSWORD_WANTED
        self.client.send(message("p", b"pw\0"))
        self.splice.pump()
        assert self.heard(self.server) == message("p", b"pw\0")
        self.server.send(READY)
        self.splice.pump()
        assert self.heard(self.client) == READY

    @staticmethod
    def heard(end: socket.socket) -> bytes | None:
        """What has arrived; None for nothing, nothing for the end."""
        try:
            return end.recv(1_000_000)
        except BlockingIOError:
            return None

    def is_lost(self) -> bool:
        """Whether it has lost its server by now."""
        try:
            self.splice.pump()
        except Lost:
            return True
        return False

    def close(self) -> None:
        self.splice.close()
        self.client.close()
        self.server.close()
