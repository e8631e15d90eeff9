"""Copies bytes between one connection of a client and one of a server, and never passes on a loss of the server.

On a loss the session raises `Lost`. Its owner can close an idle client's connection, so that the client dials again
(`close_idle`); any other client receives nothing more.
"""

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Callable

from service.pgrelay.framing import NotPostgres, ServerMessages
from service.pgrelay.interceptor import Forward, Interceptor, Reply

_READ_BYTES = 64 * 1024
_MAX_ROUNDS = 16
"""Rounds of a pump, of one read in each direction, before other connections are served."""

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Lost(Exception):
    """The server is lost, for the reason in the message. What it answered before has been forwarded."""


class ProxySession:
    """Buffers at most one read in each direction, and reads nothing more from a side until its buffer is sent."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        greeting: bytes,
        interceptor: Interceptor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`greeting`: what the server has sent already. Both sockets are non-blocking."""
        self.client = client
        self.server = server
        self.is_over = False
        """The client has closed its connection, which is no loss."""
        self.has_more = False
        """The last pump stopped so that other connections are served."""
        self.interceptor = interceptor
        self._clock = clock
        self._replies = ServerMessages()
        # A ReadyForQuery also ends the startup.
        self._owed = 1
        self._is_asking = True
        """The client has sent something since it last received all its answers."""
        self._progress_at = clock()
        self._greeting = greeting
        self.is_flushing = False
        """The server owes answers for which the client does not wait."""
        self.is_doubted = False
        """The connection may be dead: it gets less time for its next answer."""
        self._to_client = self._to_server = memoryview(b"")
        self._write_error: OSError | None = None
        """Why a write to the server failed; what the server sent before is read first."""
        self._tls = server if isinstance(server, ssl.SSLSocket) else None
        # TLS may have to write in order to read, and to read in order to write.
        self._tls_wants = 0
        self._client_readable = self._server_readable = True

    def close(self) -> None:
        """Close both connections."""
        self.client.close()
        self.server.close()

    def close_idle(self) -> bool:
        """Close a lost connection, unless a statement is under way; return whether it was closed.

        The client's next statement fails before a byte of it is written. lib/pq and database/sql treat that as a stale
        connection and repeat the statement on another one, so the library sees no error.
        """
        if self._is_asking or self._to_client or not (self._replies.is_idle and self._replies.is_between):
            return False
        with contextlib.suppress(OSError, _ClientClosed):
            # From here on a write by the client fails with EPIPE. What it wrote before can still be read.
            self.client.shutdown(socket.SHUT_RD)
            if self._read_client():
                return False
        self.close()
        return True

    @property
    def is_busy(self) -> bool:
        """Return whether a statement is under way, held or deferred."""
        return self._owed > 0 or self.interceptor.is_held or self.interceptor.has_deferred

    @property
    def client_events(self) -> int:
        """The selector events to wait for on the client's socket."""
        is_paused = self._to_server or self.is_flushing or self.interceptor.is_held
        return (0 if is_paused else READ) | (WRITE if self._to_client else 0)

    @property
    def server_events(self) -> int:
        """The selector events to wait for on the server's socket."""
        return self._tls_wants | (0 if self._to_client else READ) | (WRITE if self._to_server else 0)

    @property
    def waiting_since(self) -> float | None:
        """The time (on the clock) since which the server owes an answer and sends nothing; None if it owes none."""
        # While an answer waits for the client to read it, the client causes the delay.
        return self._progress_at if self._owed and not self._to_client else None

    def expect_cancel(self) -> None:
        """Expect that the client's current statement, if there is one, ends as cancelled."""
        self._replies.may_be_cancelled = self._owed > 0

    def flush(self) -> None:
        """Forward the deferred statements, if no other request is under way.

        The client's next request waits until they are answered, because not every connection pooler accepts a request
        while another transaction is under way.
        """
        if not self._owed and not self._to_server and (forward := self.interceptor.flush()) is not None:
            self.is_flushing = True
            self._send(forward)

    def pump(self, *, client: bool = True, server: bool = True) -> None:
        """Copy what can be copied without blocking. The flags say which sockets may be readable. Raise Lost."""
        self._client_readable |= client
        self._server_readable |= server
        try:
            self._pump()
        except _ClientClosed:
            self.is_over = True
        except (OSError, NotPostgres) as error:
            if not self._has_client_left():
                raise Lost(f"the connection to Postgres failed: {error}") from error
            self.is_over = True
        except Lost:
            if not self._has_client_left():
                raise
            self.is_over = True

    def _pump(self) -> None:
        self._tls_wants = 0
        if self._greeting:
            greeting, self._greeting = self._greeting, b""
            self._forward_to_client(greeting)
        for _ in range(_MAX_ROUNDS):
            is_moving = self._pump_to_server()
            if self.interceptor.requests.is_over and not (self._to_server or self.interceptor.is_held):
                # The client has sent Terminate, and the relay has forwarded it.
                raise _ClientClosed
            is_moving |= self._pump_to_client()
            # What is held may go on once the server has answered.
            if not is_moving or not (self._client_readable or self._server_readable or self.interceptor.is_held):
                self.has_more = False
                return
        self.has_more = True

    # --- client to server

    def _pump_to_server(self) -> bool:
        is_moving = bool(self._to_server) and self._flush_to_server()
        if self._write_error or self._to_server or self.is_flushing:
            return is_moving
        match step := self._next_step():
            case Forward() as forward:
                self._send(forward, self.interceptor.requests.asked)
            case Reply(answer):
                self._to_client = memoryview(answer)
                self._flush_to_client()
        if step is not None:
            # The server owes no answer to a held request.
            self.interceptor.requests.asked = 0
        if self.interceptor.is_commit_due:
            self.flush()
        return is_moving or step is not None

    def _next_step(self) -> Forward | Reply | None:
        can_reply = not (self._owed or self._to_client)
        if self.interceptor.is_held:
            return self.interceptor.release(can_reply=can_reply)
        if not self._client_readable or (data := self._read_client()) is None:
            return None
        if not data:
            raise _ClientClosed
        self._client_readable = len(data) == _READ_BYTES
        self._is_asking = True
        return self.interceptor.receive(data, can_reply=can_reply)

    def _send(self, forward: Forward, asked: int = 0) -> None:
        if not self._owed:
            self._progress_at = self._clock()
        self._owed += forward.answers_to_skip + asked
        self._replies.to_skip += forward.answers_to_skip
        self._replies.must_succeed |= forward.must_succeed
        self._to_server = memoryview(forward.data)
        self._flush_to_server()

    def _read_client(self) -> bytes | None:
        try:
            return self.client.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            self._client_readable = False
            return None
        except OSError as error:
            raise _ClientClosed from error

    def _has_client_left(self) -> bool:
        """Return whether the client left before the server did; read what the client sent last."""
        while not self.interceptor.requests.is_over:
            try:
                if not (data := self._read_client()):
                    return data is not None
                self.interceptor.requests.feed(data)
            except (_ClientClosed, NotPostgres):
                return True
        return True

    def _flush_to_server(self) -> bool:
        try:
            sent = self.server.send(self._to_server)
        except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError):
            return False
        except ssl.SSLWantReadError:
            self._tls_wants |= READ
            return False
        except OSError as error:
            # The server may have sent answers and an error before.
            self._write_error = error
            self._server_readable = True
            self._to_server = memoryview(b"")
            return False
        self._to_server = self._to_server[sent:]
        return True

    # --- server to client

    def _pump_to_client(self) -> bool:
        is_moving = bool(self._to_client) and self._flush_to_client()
        self._raise_loss()
        if self._to_client or not self._server_readable or (data := self._read_server()) is None:
            if self._write_error is not None and not self._to_client:
                raise self._write_error
            return is_moving
        if not data:
            raise Lost("Postgres closed the connection without an error message")
        # Bytes that TLS has already received cause no event on the socket.
        self._server_readable = len(data) == _READ_BYTES or (self._tls is not None and self._tls.pending() > 0)
        self._progress_at, self.is_doubted = self._clock(), False
        self._forward_to_client(data)
        return True

    def _forward_to_client(self, data: bytes) -> None:
        """Forward what may be forwarded of the server's bytes. Raise Lost or NotPostgres."""
        self._to_client = memoryview(self._replies.feed(data))
        self._owed = max(0, self._owed - self._replies.ready)
        if self._replies.ready and not self._owed:
            self._is_asking, self.is_flushing = self.interceptor.is_held, False
            self.interceptor.answered(is_idle=self._replies.is_idle)
        self._replies.ready = 0
        if self._to_client:
            self._flush_to_client()
        self._raise_loss()

    def _raise_loss(self) -> None:
        """Raise Lost for a fatal error, once everything before it has been forwarded."""
        if self._replies.loss is not None and not self._to_client:
            raise Lost(str(self._replies.loss))

    def _read_server(self) -> bytes | None:
        try:
            return self.server.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            self._server_readable = False
            return None
        except ssl.SSLWantWriteError:
            self._tls_wants |= WRITE
            return None

    def _flush_to_client(self) -> bool:
        try:
            sent = self.client.send(self._to_client)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise _ClientClosed from error
        self._to_client = self._to_client[sent:]
        # The client's delay in reading does not count against the server.
        self._progress_at = self._clock()
        return True


class _ClientClosed(Exception):
    """The client has sent Terminate or closed its connection."""
