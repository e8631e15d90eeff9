"""One connection of the client and one of the server, both up: what either side sends goes to the other.

A loss of the server is never passed on. The owner of a splice sees `Lost` and decides: an idle client can be made to
dial again (`close_idle`), any other client hears nothing more.
"""

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Callable

from service.pgrelay.framing import NotPostgres, ServerMessages
from service.pgrelay.interceptor import Forward, Interceptor, Reply

_PIECE_BYTES = 64 * 1024
_PIECES_AT_ONCE = 16
"""Pieces that are passed on before other connections are served."""

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Lost(Exception):
    """The server is lost, and the client must never hear of it. The words say how.

    What the server had answered before has been passed on.
    """


class ProxySession:
    """Passes pieces on. At most one waits in each direction; while it does, nothing more is read from its source."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        said: bytes,
        interceptor: Interceptor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`said`: what the server has sent already. Neither socket may block."""
        self.client = client
        self.server = server
        self.is_over = False
        """The client has left, which is no loss."""
        self.has_more = False
        """It stopped to let other connections be served."""
        self.interceptor = interceptor
        self._clock = clock
        self._answers = ServerMessages()
        # The end of the startup is announced by a ReadyForQuery as well.
        self._owed = 1
        self._is_asking = True
        """The client has sent something since it last had all its answers."""
        self._heard_at = clock()
        self._said = said
        self.is_flushing = False
        """The server has answers to give for which the client does not wait."""
        self._to_client = self._to_server = memoryview(b"")
        self._cut: OSError | None = None
        """Why nothing can be sent to the server any more; what it sent before is yet to be read."""
        self._tls = server if isinstance(server, ssl.SSLSocket) else None
        # TLS may have to write in order to read, and to read in order to write.
        self._server_wants = 0
        self._client_has_news = self._server_has_news = True

    def close(self) -> None:
        """Close both connections."""
        self.client.close()
        self.server.close()

    def close_idle(self) -> bool:
        """Close a lost connection on which no statement is under way; return False, and do nothing, if one is.

        The client's next statement fails before a byte of it is written. lib/pq and database/sql take that for a
        connection that has gone stale, and repeat the statement on another one: the library sees no error.
        """
        if self._is_asking or self._to_client or not (self._answers.is_idle and self._answers.is_between):
            return False
        with contextlib.suppress(OSError, _ClientGone):
            # From here on a write of the client fails with EPIPE. What it wrote before is still there to be read.
            self.client.shutdown(socket.SHUT_RD)
            if self._hear_client():
                return False
        self.close()
        return True

    @property
    def is_busy(self) -> bool:
        """Whether a statement is under way, held or deferred."""
        return self._owed > 0 or self.interceptor.is_held or self.interceptor.has_deferred

    @property
    def client_events(self) -> int:
        """What to wait for on the client's socket."""
        is_deaf = self._to_server or self.is_flushing or self.interceptor.is_held
        return (0 if is_deaf else READ) | (WRITE if self._to_client else 0)

    @property
    def server_events(self) -> int:
        """What to wait for on the server's socket."""
        return self._server_wants | (0 if self._to_client else READ) | (WRITE if self._to_server else 0)

    @property
    def waiting_since(self) -> float | None:
        """Since when (on the clock) the server owes an answer and sends nothing; None if it does not."""
        # What waits for the client to take it is the client's delay.
        return self._heard_at if self._owed and not self._to_client else None

    def expect_cancel(self) -> None:
        """Expect that the client's present statement, if there is one, ends as cancelled."""
        self._answers.may_be_cancelled = self._owed > 0

    def flush(self) -> None:
        """Forward what was answered and can be forwarded by itself, if nothing else is under way.

        The client's next request waits until that is done: not every connection pooler takes a request while another
        transaction is under way.
        """
        if not self._owed and not self._to_server and (forward := self.interceptor.flush()) is not None:
            self.is_flushing = True
            self._send(forward)

    def pump(self, *, client: bool = True, server: bool = True) -> None:
        """Pass on what can be passed on without waiting; the flags say whose socket has news. Raises Lost."""
        self._client_has_news |= client
        self._server_has_news |= server
        try:
            self._pump()
        except _ClientGone:
            self.is_over = True
        except (OSError, NotPostgres) as error:
            if not self._client_is_leaving():
                raise Lost(f"the connection to Postgres failed: {error}") from error
            self.is_over = True
        except Lost:
            if not self._client_is_leaving():
                raise
            self.is_over = True

    def _pump(self) -> None:
        self._server_wants = 0
        if self._said:
            said, self._said = self._said, b""
            self._take(said)
        for _ in range(_PIECES_AT_ONCE):
            is_moving = self._to_server_goes_on()
            if self.interceptor.requests.is_over and not (self._to_server or self.interceptor.is_held):
                # It has said goodbye, and its server has been told.
                raise _ClientGone
            is_moving |= self._to_client_goes_on()
            if not is_moving or not (self._client_has_news or self._server_has_news):
                self.has_more = False
                return
        self.has_more = True

    # --- client to server

    def _to_server_goes_on(self) -> bool:
        is_moving = bool(self._to_server) and self._flush_to_server()
        if self._cut or self._to_server or self.is_flushing:
            return is_moving
        match step := self._next_step():
            case Forward() as forward:
                self._send(forward, self.interceptor.requests.asked)
            case Reply(answer):
                self._to_client = memoryview(answer)
                self._flush_to_client()
        if step is not None:
            # A server owes no answer to what is held.
            self.interceptor.requests.asked = 0
        if self.interceptor.is_commit_due:
            self.flush()
        return is_moving or step is not None

    def _next_step(self) -> Forward | Reply | None:
        can_reply = not (self._owed or self._to_client)
        if self.interceptor.is_held:
            return self.interceptor.release(can_reply=can_reply)
        if not self._client_has_news or (data := self._hear_client()) is None:
            return None
        if not data:
            raise _ClientGone
        self._client_has_news = len(data) == _PIECE_BYTES
        self._is_asking = True
        return self.interceptor.receive(data, can_reply=can_reply)

    def _send(self, forward: Forward, asked: int = 0) -> None:
        if not self._owed:
            self._heard_at = self._clock()
        self._owed += forward.answers_to_skip + asked
        self._answers.to_skip += forward.answers_to_skip
        self._answers.must_succeed |= forward.must_succeed
        self._to_server = memoryview(forward.data)
        self._flush_to_server()

    def _hear_client(self) -> bytes | None:
        try:
            return self.client.recv(_PIECE_BYTES)
        except (BlockingIOError, InterruptedError):
            self._client_has_news = False
            return None
        except OSError as error:
            raise _ClientGone from error

    def _client_is_leaving(self) -> bool:
        """Return whether the client had left before the server did. What it said last may be unread yet."""
        while not self.interceptor.requests.is_over:
            try:
                if not (data := self._hear_client()):
                    return data is not None
                self.interceptor.requests.feed(data)
            except (_ClientGone, NotPostgres):
                return True
        return True

    def _flush_to_server(self) -> bool:
        try:
            sent = self.server.send(self._to_server)
        except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError):
            return False
        except ssl.SSLWantReadError:
            self._server_wants |= READ
            return False
        except OSError as error:
            # It may have answered before, and have said why it goes.
            self._cut = error
            self._server_has_news = True
            self._to_server = memoryview(b"")
            return False
        self._to_server = self._to_server[sent:]
        return True

    # --- server to client

    def _to_client_goes_on(self) -> bool:
        is_moving = bool(self._to_client) and self._flush_to_client()
        self._look_for_loss()
        if self._to_client or not self._server_has_news or (data := self._hear_server()) is None:
            if self._cut is not None and not self._to_client:
                raise self._cut
            return is_moving
        if not data:
            raise Lost("Postgres closed the connection without a word")
        # Behind TLS, what was received already is in no socket any more, and no event announces it.
        self._server_has_news = len(data) == _PIECE_BYTES or (self._tls is not None and self._tls.pending() > 0)
        self._heard_at = self._clock()
        self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        """Pass on what may be passed on of what the server sent. Raises Lost, NotPostgres."""
        self._to_client = memoryview(self._answers.feed(data))
        self._owed = max(0, self._owed - self._answers.ready)
        if self._answers.ready and not self._owed:
            self._is_asking, self.is_flushing = self.interceptor.is_held, False
            self.interceptor.answered(is_idle=self._answers.is_idle)
        self._answers.ready = 0
        if self._to_client:
            self._flush_to_client()
        self._look_for_loss()

    def _look_for_loss(self) -> None:
        """Raise Lost, once all that came before it has been passed on."""
        if self._answers.loss is not None and not self._to_client:
            raise Lost(str(self._answers.loss))

    def _hear_server(self) -> bytes | None:
        try:
            return self.server.recv(_PIECE_BYTES)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            self._server_has_news = False
            return None
        except ssl.SSLWantWriteError:
            self._server_wants |= WRITE
            return None

    def _flush_to_client(self) -> bool:
        try:
            sent = self.client.send(self._to_client)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise _ClientGone from error
        self._to_client = self._to_client[sent:]
        # How long the client took to take it does not count against the server.
        self._heard_at = self._clock()
        return True


class _ClientGone(Exception):
    """The client has said goodbye, or closed its connection."""
