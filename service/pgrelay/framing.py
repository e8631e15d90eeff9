"""Postgres' protocol, as far as the relay must understand it: where messages begin, and which of them mean a loss.

A message of a connection that is up: one byte that says its type, four that say its length (themselves included, the
type not), its body. What a client says first has no type.
"""

import enum
import re
import struct
from dataclasses import dataclass

LONGEST_STARTUP = 10_000
"""Bytes of the longest startup message; Postgres' own bound."""
LONGEST_ERROR = 64 * 1024
"""Bytes of an ErrorResponse that are collected to judge it; severity and code are its first fields."""
LONGEST_GREETING = 64 * 1024
"""Bytes of all that a server says before it waits for an answer."""

CANCEL = 80877102
ENCRYPTION = frozenset({80877103, 80877104})
"""SSLRequest, GSSENCRequest."""

_HEADER = 5
_LENGTH = struct.Struct("!I")
_STARTUP = struct.Struct("!II")
_COUNT = struct.Struct("!H")
_VALUE = struct.Struct("!i")

_FATAL = frozenset({"FATAL", "PANIC"})
#: Shut down, crashed, starting, dropped; connection failures, PgBouncer's among them; no disk, no memory, too many; a
#: server that is broken, or has become a standby; a deadlock, a lock that is not to be had. Whatever it cannot do just
#: now: the library would take it for a fault of the message that it was about, and forget that.
_LOST = ("57P", "08", "53", "58", "XX", "40", "25006", "55P03")
_CANCELLED = "57014"
"""By its client, which knows why; or by a role's statement_timeout, when the server is too slow just now."""


class NotPostgres(Exception):
    """What came in is not the protocol."""


@dataclass(frozen=True)
class ServerError:
    """An ErrorResponse, without what it repeats of a query or of data."""

    severity: str
    code: str
    message: str

    @property
    def is_loss(self) -> bool:
        """Whether the connection is gone with it, or what is behind it."""
        return self.severity in _FATAL or self.code.startswith(_LOST)

    def __str__(self) -> str:
        return f"{self.severity} {self.code}: {self.message}"


def read_error(body: bytes) -> ServerError:
    """The body of an ErrorResponse, or its beginning. What cannot be read is severe."""
    fields: dict[str, str] = {}
    for field in body.split(b"\0"):
        # Of each kind the first one: what follows a message is never taken for the message.
        fields.setdefault(field[:1].decode("latin-1"), field[1:].decode(errors="replace"))
    severity = fields.get("V") or fields.get("S") or "FATAL"
    return ServerError(severity, fields.get("C") or "unknown", fields.get("M", "no message"))


class StartupKind(enum.Enum):
    """What the first message of a client asks for."""

    SESSION = enum.auto()
    CANCEL = enum.auto()
    ENCRYPTION = enum.auto()


def first_message(received: bytes) -> tuple[StartupKind, bytes] | None:
    """The client's first message, whole, and what it asks for; None: there is more to come. Raises NotPostgres."""
    if len(received) < _STARTUP.size:
        return None
    length, code = _STARTUP.unpack_from(received)
    if not _STARTUP.size <= length <= LONGEST_STARTUP:
        raise NotPostgres(f"a first message of {length} bytes")
    if len(received) < length:
        return None
    kind = (
        StartupKind.CANCEL if code == CANCEL else StartupKind.ENCRYPTION if code in ENCRYPTION else StartupKind.SESSION
    )
    return kind, received[:length]


class ServerMessages:
    """What a server says after its first request to authenticate: how much of it may be passed on.

    All of it, in pieces of any size, but an error is held back until it is there whole (or long enough to be judged).
    """

    def __init__(self) -> None:
        self.ready = 0
        """ReadyForQuery messages since this was last set to 0."""
        self.is_idle = False
        """The last of them said that no transaction is open."""
        self.may_be_cancelled = False
        """Its client has asked for that, since the last of them."""
        self.loss: ServerError | None = None
        """The error that ended it: neither it nor what comes behind it is to be passed on."""
        self.to_skip = 0
        """Answers that are not to be passed on, each up to its ReadyForQuery."""
        self.must_succeed = False
        """The client has been answered already: an error among the skipped answers is a loss."""
        self._held = b""
        self._left = 0

    @property
    def is_between(self) -> bool:
        """What may be passed on so far ends where a message does."""
        return self._left == 0

    def feed(self, data: bytes) -> bytes | memoryview:
        """What may be passed on now. Raises NotPostgres."""
        if self.loss is not None:
            return b""
        if self._held:
            data, self._held = self._held + data, b""
        start, position, end = 0, 0, len(data)
        while position < end and self.loss is None:
            if self._left:
                step = min(self._left, end - position)
                self._left -= step
                position += step
                continue
            left_to_skip = self.to_skip
            if (next_position := self._message(data, position)) == position:
                break
            position = next_position
            if self.to_skip < left_to_skip:
                start = position
        if self.to_skip:
            start = position
        if (start, position) == (0, end):
            return data
        self._held = data[position:]
        return memoryview(data)[start:position]

    def _message(self, data: bytes, position: int) -> int:
        """Begin the message at this position; where to go on, or the same position if more of it is needed."""
        if len(data) - position < _HEADER:
            return position
        kind = data[position]
        (length,) = _LENGTH.unpack_from(data, position + 1)
        if kind == _ERROR:
            return self._error(data, position, length)
        if length < _LENGTH.size:
            raise NotPostgres(f"a message of {length} bytes")
        if kind == _READY:
            if len(data) - position == _HEADER:
                return position
            self.ready += 1
            self.to_skip = max(0, self.to_skip - 1)
            self.must_succeed = self.must_succeed and self.to_skip > 0
            self.is_idle = data[position + _HEADER] == _IDLE
            self.may_be_cancelled = False
            self._left = length - _LENGTH.size - 1
            return position + _HEADER + 1
        self._left = length - _LENGTH.size
        return position + _HEADER

    def _error(self, data: bytes, position: int, length: int) -> int:
        body = position + _HEADER
        needed = min(max(length - _LENGTH.size, 0), LONGEST_ERROR)
        if len(data) - body < needed:
            return position
        error = read_error(data[body : body + needed])
        is_timeout = error.code == _CANCELLED and not self.may_be_cancelled
        if error.is_loss or is_timeout or self.must_succeed or length < _LENGTH.size:
            self.loss = error
            return position
        self._left = length - _LENGTH.size - needed
        return body + needed


class Statement(enum.Enum):
    """A statement of the library that the relay does not just pass on, by how its text begins."""

    LOOK_UP = b"SELECT plaintext, server_timestamp, insert_timestamp FROM whatsmeow_event_buffer "
    STORE_EVENT = b"INSERT INTO whatsmeow_event_buffer "
    CLEAR = b"UPDATE whatsmeow_event_buffer SET plaintext = NULL "
    LOAD_SESSION = b"SELECT session FROM whatsmeow_sessions "
    LOAD_SESSIONS = b"SELECT their_id, session FROM whatsmeow_sessions "
    LOAD_SENDER_KEY = b"SELECT sender_key FROM whatsmeow_sender_keys "
    # There are others that begin alike, copy rows, and whose number of rows matters.
    STORE_SESSION = b"INSERT INTO whatsmeow_sessions (our_jid, their_id, session) VALUES "
    STORE_IDENTITY = b"INSERT INTO whatsmeow_identity_keys (our_jid, their_id, identity) VALUES "
    STORE_SENDER_KEY = b"INSERT INTO whatsmeow_sender_keys (our_jid, chat_id, sender_id, sender_key) VALUES "
    STORE_SECRET = b"INSERT INTO whatsmeow_message_secrets (our_jid, chat_jid, sender_jid, message_id, key)"
    DELETE_DEVICE = b"DELETE FROM whatsmeow_device "
    BEGIN = b"BEGIN"
    COMMIT = b"COMMIT"


_BEGINNING_BYTES = 16 + max(len(statement.value) for statement in Statement)
"""Of a text that has to be read to know the statement, white space before it included."""
_STATEMENTS = tuple(Statement)
#: The statement's name, empty in what lib/pq sends with parameters, and a zero come first.
_KNOWN = re.compile(rb"[\0 \t\n]*(?:" + b"|".join(b"(%b)" % re.escape(one.value) for one in _STATEMENTS) + b")")


def first_values(request: bytes, count: int) -> list[bytes]:
    """Return the first values of a request that begins with Parse and Bind; NULL is an empty one.

    Raises struct.error or ValueError if it does not begin so, or has fewer values.
    """
    position = 1 + _LENGTH.unpack_from(request, 1)[0]
    # The names of the portal and of the statement.
    position = request.index(b"\0", request.index(b"\0", position + _HEADER) + 1) + 1
    position += _COUNT.size * (1 + _COUNT.unpack_from(request, position)[0])
    if _COUNT.unpack_from(request, position)[0] < count:
        raise ValueError("too few values")
    position += _COUNT.size
    values = []
    for _ in range(count):
        end = position + _VALUE.size + max(0, _VALUE.unpack_from(request, position)[0])
        values.append(request[position + _VALUE.size : end])
        position = end
    return values


class ClientMessages:
    """What a client says after its first message: how many answers it waits for, and what it asks of the buffer."""

    def __init__(self) -> None:
        self.asked = 0
        """Messages since this was last set to 0 that a ReadyForQuery answers."""
        self.is_over = False
        """It said goodbye."""
        self.statement: Statement | None = None
        """The last one of those that are known by name which began in what was fed last."""
        self.is_single = False
        """What was fed last is all of one request: one ReadyForQuery answers it."""
        self._held = b""
        self._left = 0
        self._text: bytes | None = None
        """The beginning of a statement, until it is long enough; None if the message has none."""

    def feed(self, data: bytes) -> None:
        """Follow what is passed on. Raises NotPostgres."""
        self.statement = None
        begins, asked = not (self._held or self._left), self.asked
        data = self._held + data
        position, end = 0, len(data)
        while True:
            step = min(self._left, end - position)
            if step and self._text is not None:
                self._read_text(data[position : position + min(step, _BEGINNING_BYTES)])
            self._left -= step
            position += step
            if end - position < _HEADER:
                break
            position = self._begin(data, position)
        self._held = data[position:]
        self.is_single = begins and not (self._held or self._left) and self.asked == asked + 1

    def _begin(self, data: bytes, position: int) -> int:
        kind = data[position]
        (length,) = _LENGTH.unpack_from(data, position + 1)
        if length < _LENGTH.size:
            raise NotPostgres(f"a message of {length} bytes")
        self.asked += kind in _ANSWERED
        self.is_over = self.is_over or kind == _TERMINATE
        self._text = b"" if kind in _WITH_TEXT else None
        self._left = length - _LENGTH.size
        return position + _HEADER

    def _read_text(self, piece: bytes) -> None:
        self._text = ((self._text or b"") + piece)[:_BEGINNING_BYTES]
        if (known := _KNOWN.match(self._text)) is not None and known.lastindex is not None:
            self.statement, self._text = _STATEMENTS[known.lastindex - 1], None
        elif len(self._text) == _BEGINNING_BYTES:
            self._text = None


_ERROR, _READY, _AUTHENTICATION = b"E"[0], b"Z"[0], b"R"[0]
_TERMINATE = b"X"[0]
#: Parse, Query.
_WITH_TEXT = frozenset(b"PQ")
_IDLE = b"I"[0]
#: Query, Sync, FunctionCall.
_ANSWERED = frozenset(b"QSF")


class StartupHandshake:
    """What a server says to a startup message, until it waits for an answer: then `is_whole`.

    Until then the startup message is all that was said to it, and can be said again to another one.
    """

    def __init__(self) -> None:
        self.is_whole = False
        self.said = b""
        """All of it, to be passed on once it is whole."""
        self._position = 0

    def feed(self, data: bytes) -> None:
        """Raises ServerRefused if it says an error, NotPostgres."""
        self.said += data
        if len(self.said) > LONGEST_GREETING:
            raise NotPostgres("a server that says too much to begin with")
        while not self.is_whole and len(self.said) - self._position >= _HEADER:
            kind = self.said[self._position]
            (length,) = _LENGTH.unpack_from(self.said, self._position + 1)
            if kind == _ERROR:
                self._refuse(length)
            if length < _LENGTH.size:
                raise NotPostgres(f"a message of {length} bytes to begin with")
            end = self._position + 1 + length
            if len(self.said) < end:
                return
            body = self.said[self._position + _HEADER : end]
            # An authentication that is complete (0) needs no answer; what follows it can still be an error.
            self.is_whole = kind == _READY or (kind == _AUTHENTICATION and any(body[:4]))
            self._position = end

    def _refuse(self, length: int) -> None:
        text = self.said[self._position + _HEADER :]
        if not 2 * _LENGTH.size <= length <= LONGEST_ERROR:
            # A postmaster that cannot fork says so in plain text behind the E.
            raise ServerRefused(ServerError("FATAL", "unknown", _plain(self.said[self._position + 1 :])))
        if len(text) >= length - _LENGTH.size:
            raise ServerRefused(read_error(text[: length - _LENGTH.size]))


class ServerRefused(Exception):
    """It answered a startup message with an error."""

    def __init__(self, error: ServerError) -> None:
        super().__init__(str(error))
        self.error = error


def _plain(text: bytes) -> str:
    return text.partition(b"\0")[0].decode(errors="replace").strip()
