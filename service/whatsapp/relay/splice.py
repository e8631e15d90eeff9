"""One client's connection and one server's, both up: what either says goes to the other, until one of them is gone.

If that is the server, the client may be able to go on with another connection (`part`, `attach`): it waits for an
answer to a question that can be asked twice (question.py), or for none.
"""

import selectors
import socket
import ssl
import time
from collections.abc import Callable

from service.whatsapp.relay.framing import Answers, NotPostgres, Requests
from service.whatsapp.relay.question import Question

_PIECE = 64 * 1024
_TURNS = 16
"""Pieces that are passed on before others get their turn."""
_CUT_SECONDS = 15.0
"""Seconds in which one question may be answered with nothing but a cut after it was asked again: perhaps it is what
servers die of."""
_REFUSED_SECONDS = 600.0
"""The same for an answer in words: of a full disk, or of a pooler that has let us in and does not reach its server. Who
asked would only ask the same again, for another message."""
_KEPT = 64 * 1024
"""Bytes of an answer that are passed on only when it is whole: until then, another server can be asked for it."""

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Lost(Exception):
    """The server is lost, and the client must never hear of it. The words say how.

    What the server had answered before has been passed on: an answer that does not arrive can be a message whose keys
    are used up in the database, and which the library then takes for one that it has had before.
    """


class Splice:
    """At most one piece waits in each direction: while it does, nothing more is read from where it came."""

    def __init__(
        self, client: socket.socket, server: socket.socket, said: bytes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`said`: what the server has said already. Neither socket may block."""
        self.client = client
        self.server = server
        self.is_over = False
        """The client has left, which is no loss."""
        self.is_parted = False
        """There is no server at present."""
        self.has_more = False
        """It stopped to let others have their turn."""
        self._clock = clock
        self._requests = Requests()
        self._answers = Answers()
        self._question = Question()
        self._is_up = self._is_asked = self._is_answer_begun = self._asks_ahead = False
        """The startup is over; the question is on its way; some of its answer was passed on; the client does not wait
        for its answers, so that which question is answered is not known here."""
        self._ends_whole = True
        """What was passed on ends where a message does."""
        self._asked_again_since: float | None = None
        self.was_refused = False
        """The question was answered with a loss, and not for the first time or in words: it may be of no use to ask it
        again at once."""
        # The end of the startup is announced by a ReadyForQuery as well.
        self._owed = 1
        self._heard_at = clock()
        self._said, self._kept = said, b""
        self._to_client = self._to_server = memoryview(b"")
        self._cut: OSError | None = None
        """Why nothing can be said to the server any more; what it said before is yet to be heard."""
        self._tls = server if isinstance(server, ssl.SSLSocket) else None
        # TLS may have to write in order to read, and to read in order to write.
        self._server_wants = 0
        self._client_has_news = self._server_has_news = True

    def close(self) -> None:
        """Let go of both."""
        self.client.close()
        self.server.close()

    @property
    def client_events(self) -> int:
        """What to wait for on the client's socket."""
        if self.is_parted:
            return 0 if self._owed else READ
        return (0 if self._to_server else READ) | (WRITE if self._to_client else 0)

    @property
    def server_events(self) -> int:
        """What to wait for on the server's."""
        if self.is_parted:
            return 0
        return self._server_wants | (0 if self._to_client else READ) | (WRITE if self._to_server else 0)

    @property
    def waiting_since(self) -> float | None:
        """Since when (on the clock) the server owes an answer and says nothing; None: it does not."""
        # What waits for the client to take it is the client's delay.
        return self._heard_at if self._owed and not self._to_client and not self.is_parted else None

    @property
    def was_asked_again(self) -> bool:
        """Whether the question was put to another server already."""
        return self._asked_again_since is not None

    @property
    def needs_server(self) -> bool:
        """Whether there is a question, and no server to ask."""
        return self.is_parted and self._owed > 0

    def expect_cancel(self) -> None:
        """The client asks that something be cancelled, perhaps what it waits for here."""
        self._answers.may_be_cancelled = self._owed > 0

    def part(self) -> bool:
        """Let go of a server that is lost, if the client can go on with another one; whether it can."""
        if not (self._answers.is_idle and self._ends_whole) or self._asks_ahead or not self._can_ask_another():
            return False
        if self._owed:
            again = self._asked_again_since
            bound = _CUT_SECONDS if self._answers.loss is None else _REFUSED_SECONDS
            if again is not None and self._clock() - again >= bound:
                return False
            self.was_refused = again is not None or self._answers.loss is not None
        self.server.close()
        self.is_parted = True
        self.has_more = self._is_asked = False
        self._to_server, self._kept = memoryview(b""), b""
        self._cut = None
        return True

    def attach(self, server: socket.socket, said: bytes = b"") -> None:
        """Go on with another server, which takes questions, and has `said` more since. Its socket must not block."""
        self.server, self._said = server, said
        self.is_parted = False
        self._tls = server if isinstance(server, ssl.SSLSocket) else None
        self._answers = Answers(is_idle=True)
        self._server_has_news = True
        self._heard_at = self._clock()
        if self._owed and self._asked_again_since is None:
            self._asked_again_since = self._clock()
        self._ask(bytes(self._question))

    def _can_ask_another(self) -> bool:
        if not self._owed:
            return True
        if self._is_answer_begun:
            return False
        return self._question.may_be_repeated if self._is_asked else self._question.stands_alone

    def pump(self, *, client: bool = True, server: bool = True) -> None:
        """Pass on whatever can be passed on without waiting; the flags say whose socket has news. Raises Lost."""
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
        if self.is_parted:
            self._hear_question()
            return
        self._server_wants = 0
        if self._said:
            said, self._said = self._said, b""
            self._take(said)
        for _ in range(_TURNS):
            is_moving = self._to_server_goes_on()
            if self._requests.is_over and not self._to_server:
                # It has said goodbye, and its server has been told.
                raise _ClientGone
            is_moving |= self._to_client_goes_on()
            if not is_moving:
                self.has_more = False
                return
        self.has_more = True

    # --- client to server

    def _to_server_goes_on(self) -> bool:
        is_moving = bool(self._to_server) and self._flush_to_server()
        if self._cut or self._to_server or not self._client_has_news or (data := self._hear_client()) is None:
            return is_moving
        if not data:
            raise _ClientGone
        self._client_has_news = len(data) == _PIECE
        self._follow(data)
        self._ask(data)
        return True

    def _ask(self, data: bytes) -> None:
        self._is_asked = True
        self._to_server = memoryview(data)
        self._flush_to_server()

    def _hear_question(self) -> None:
        """While there is no server: until the client has asked something, or left."""
        while not self._owed and (data := self._hear_client()) is not None:
            if data:
                self._follow(data)
            if not data or self._requests.is_over:
                raise _ClientGone
        if self._owed and not self._question.stands_alone:
            raise Lost("the server is lost on which the library had prepared what it asks")

    def _hear_client(self) -> bytes | None:
        try:
            return self.client.recv(_PIECE)
        except (BlockingIOError, InterruptedError):
            self._client_has_news = False
            return None
        except OSError as error:
            raise _ClientGone from error

    def _follow(self, data: bytes) -> None:
        self._asks_ahead |= self._is_up and self._owed > 0
        self._requests.feed(data)
        self._question.add(data)
        if self._requests.asked:
            if not self._owed:
                self._heard_at = self._clock()
            self._owed += self._requests.asked
            self._requests.asked = 0

    def _client_is_leaving(self) -> bool:
        """Whether the client had said goodbye, or was gone, before the server was: its last words may be unread yet."""
        while not self._requests.is_over:
            try:
                if not (data := self._hear_client()):
                    return data is not None
                self._follow(data)
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
        # Behind TLS, what was received already is in no socket any more, and nobody would tell of it.
        self._server_has_news = len(data) == _PIECE or (self._tls is not None and self._tls.pending() > 0)
        self._heard_at = self._clock()
        self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        """Pass on what may be passed on of what the server said. Raises Lost, NotPostgres."""
        said = self._answers.feed(data)
        self._owed = max(0, self._owed - self._answers.ready)
        self._say(said)
        if self._answers.ready and not self._owed:
            self._question.clear()
            self._is_up, self._is_asked = True, False
            self._asked_again_since, self.was_refused = None, False
        self._answers.ready = 0
        if self._to_client:
            self._flush_to_client()
        self._look_for_loss()

    def _say(self, said: bytes | memoryview) -> None:
        """Have it passed on, or kept until the answer is whole: half of one is of no use, and cannot be taken back."""
        if self._keeps(len(said)):
            self._kept += said
            return
        said, self._kept = self._kept + said if self._kept else said, b""
        self._to_client = memoryview(said)
        if said:
            self._ends_whole = self._answers.is_between
        self._is_answer_begun = self._owed > 0 and (self._is_answer_begun or len(said) > 0)

    def _keeps(self, more: int) -> bool:
        is_begun = self._is_answer_begun or self._answers.ready > 0
        # Whoever does not wait for answers, or is waited for, must get what there is.
        if not self._is_up or not self._owed or is_begun or self._asks_ahead or self._answers.wants_input:
            return False
        return len(self._kept) + more <= _KEPT

    def _look_for_loss(self) -> None:
        """Raises Lost, once all that came before it has been passed on."""
        if self._answers.loss is not None and not self._to_client:
            raise Lost(str(self._answers.loss))

    def _hear_server(self) -> bytes | None:
        try:
            return self.server.recv(_PIECE)
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
    """It has said goodbye, or closed its connection."""
