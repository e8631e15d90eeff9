"""Parses the part of Postgres' protocol that the relay needs: message boundaries, losses and known statements.

A message is a type (one byte), a length (four bytes, which count themselves and not the type) and a body. The first
message of a client has no type.
"""

import enum
import re
import struct
from dataclasses import dataclass

LONGEST_STARTUP = 10_000
"""Bytes of the longest startup message; Postgres' own bound."""
LONGEST_ERROR = 64 * 1024
"""Bytes of an ErrorResponse that are read; severity and code are its first fields."""
LONGEST_GREETING = 64 * 1024
"""Bytes that a server may send before it waits for an answer."""

SSL_REQUEST_CODE = 80877103
_HEADER_BYTES = 5
_LENGTH = struct.Struct("!I")
_STARTUP = struct.Struct("!II")
_COUNT = struct.Struct("!H")
_VALUE = struct.Struct("!i")

_FATAL_SEVERITIES = frozenset({"FATAL", "PANIC"})
#: SQLSTATE prefixes of what a server cannot do now: it shuts down or starts; connection failures (also PgBouncer's); no
#: disk, memory or connection slots; internal errors; deadlocks; a standby; a lock that is not available. The library
#: would blame the message that it processes, and drop it.
_LOST_CODES = ("57P", "08", "53", "58", "XX", "40", "25006", "55P03")
_CANCELLED_CODE = "57014"
"""Cancelled by the client, or by a role's statement_timeout if the server is too slow."""


class NotPostgres(Exception):
    """The received bytes violate the protocol."""


@dataclass(frozen=True)
class ServerError:
    """An ErrorResponse, without the fields that repeat a query or data."""

    severity: str
    code: str
    message: str

    @property
    def is_loss(self) -> bool:
        """Return whether the error means that the connection or the server behind it is lost."""
        return self.severity in _FATAL_SEVERITIES or self.code.startswith(_LOST_CODES)

    def __str__(self) -> str:
        return f"{self.severity} {self.code}: {self.message}"


def read_error(body: bytes) -> ServerError:
    """Parse the body of an ErrorResponse, or its beginning. Without a severity it counts as FATAL."""
    fields: dict[str, str] = {}
    for field in body.split(b"\0"):
        # The first field of each kind counts; later bytes must not replace it.
        fields.setdefault(field[:1].decode("latin-1"), field[1:].decode(errors="replace"))
    severity = fields.get("V") or fields.get("S") or "FATAL"
    return ServerError(severity, fields.get("C") or "unknown", fields.get("M", "no message"))


class StartupKind(enum.Enum):
    """The request in the first message of a client."""

    SESSION = enum.auto()
    CANCEL = enum.auto()
    ENCRYPTION = enum.auto()


_STARTUP_KINDS = {
    80877102: StartupKind.CANCEL,
    SSL_REQUEST_CODE: StartupKind.ENCRYPTION,
    80877104: StartupKind.ENCRYPTION,  # GSSENCRequest
}
"""Kinds by code; every other code is a protocol version, which begins a session."""


def first_message(received: bytes) -> tuple[StartupKind, bytes] | None:
    """Return the kind and the bytes of a client's first message; None if it is incomplete. Raise NotPostgres."""
    if len(received) < _STARTUP.size:
        return None
    length, code = _STARTUP.unpack_from(received)
    if not _STARTUP.size <= length <= LONGEST_STARTUP:
        raise NotPostgres(f"a first message of {length} bytes")
    if len(received) < length:
        return None
    return _STARTUP_KINDS.get(code, StartupKind.SESSION), received[:length]


class ServerMessages:
    """Follows a server's messages after its first authentication request, and decides what to forward.

    It forwards bytes as they come, but an error only once it is complete or `LONGEST_ERROR` bytes of it are there.
    """

    def __init__(self) -> None:
        self.ready = 0
        """ReadyForQuery messages since this was last set to 0."""
        self.is_idle = False
        """The last ReadyForQuery reported no open transaction."""
        self.may_be_cancelled = False
        """The client has sent a cancel request since the last ReadyForQuery."""
        self.loss: ServerError | None = None
        """The error that means a loss; neither it nor what follows is forwarded."""
        self.to_skip = 0
        """Answers that are not forwarded, each up to its ReadyForQuery."""
        self.must_succeed = False
        """The relay has answered the client already, so an error among the skipped answers is a loss."""
        self._partial = b""
        self._remaining = 0

    @property
    def is_between(self) -> bool:
        """Return whether the forwarded bytes end at a message boundary."""
        return self._remaining == 0

    def feed(self, data: bytes) -> bytes | memoryview:
        """Return the bytes to forward now. Raise NotPostgres."""
        if self.loss is not None:
            return b""
        if self._partial:
            data, self._partial = self._partial + data, b""
        start, position, end = 0, 0, len(data)
        while position < end and self.loss is None:
            if self._remaining:
                step = min(self._remaining, end - position)
                self._remaining -= step
                position += step
                continue
            skips_before = self.to_skip
            if (next_position := self._begin(data, position)) == position:
                break
            position = next_position
            if self.to_skip < skips_before:
                start = position
        if self.to_skip:
            start = position
        if (start, position) == (0, end):
            return data
        self._partial = data[position:]
        return memoryview(data)[start:position]

    def _begin(self, data: bytes, position: int) -> int:
        """Read the header at `position`; return the next position, or the same one if more bytes are needed."""
        if len(data) - position < _HEADER_BYTES:
            return position
        kind = data[position]
        (length,) = _LENGTH.unpack_from(data, position + 1)
        if kind == _ERROR:
            return self._error(data, position, length)
        if length < _LENGTH.size:
            raise NotPostgres(f"a message of {length} bytes")
        if kind == _READY:
            if len(data) - position == _HEADER_BYTES:
                return position
            self.ready += 1
            self.to_skip = max(0, self.to_skip - 1)
            self.must_succeed = self.must_succeed and self.to_skip > 0
            self.is_idle = data[position + _HEADER_BYTES] == _IDLE
            self.may_be_cancelled = False
            self._remaining = length - _LENGTH.size - 1
            return position + _HEADER_BYTES + 1
        self._remaining = length - _LENGTH.size
        return position + _HEADER_BYTES

    def _error(self, data: bytes, position: int, length: int) -> int:
        body = position + _HEADER_BYTES
        needed = min(max(length - _LENGTH.size, 0), LONGEST_ERROR)
        if len(data) - body < needed:
            return position
        error = read_error(data[body : body + needed])
        is_timeout = error.code == _CANCELLED_CODE and not self.may_be_cancelled
        if error.is_loss or is_timeout or self.must_succeed or length < _LENGTH.size:
            self.loss = error
            return position
        self._remaining = length - _LENGTH.size - needed
        return body + needed


class Statement(enum.Enum):
    """A statement of the library that the relay handles, by the beginning of its text."""

    LOOK_UP = b"SELECT plaintext, server_timestamp, insert_timestamp FROM whatsmeow_event_buffer "
    STORE_EVENT = b"INSERT INTO whatsmeow_event_buffer "
    CLEAR = b"UPDATE whatsmeow_event_buffer SET plaintext = NULL "
    LOAD_SESSION = b"SELECT session FROM whatsmeow_sessions "
    LOAD_SESSIONS = b"SELECT their_id, session FROM whatsmeow_sessions "
    LOAD_SENDER_KEY = b"SELECT sender_key FROM whatsmeow_sender_keys "
    # The text must reach into VALUES: similar statements copy rows, and their row count matters.
    STORE_SESSION = b"INSERT INTO whatsmeow_sessions (our_jid, their_id, session) VALUES "
    STORE_IDENTITY = b"INSERT INTO whatsmeow_identity_keys (our_jid, their_id, identity) VALUES "
    STORE_SENDER_KEY = b"INSERT INTO whatsmeow_sender_keys (our_jid, chat_id, sender_id, sender_key) VALUES "
    STORE_SECRET = b"INSERT INTO whatsmeow_message_secrets (our_jid, chat_jid, sender_jid, message_id, key)"
    DELETE_DEVICE = b"DELETE FROM whatsmeow_device "
    BEGIN = b"BEGIN"
    COMMIT = b"COMMIT"


_BEGINNING_BYTES = 16 + max(len(statement.value) for statement in Statement)
"""Bytes of a text that identify the statement, leading white space included."""
_STATEMENTS = tuple(Statement)
#: In a Parse message the statement's name (empty in lib/pq) and a zero come first.
_KNOWN_STATEMENT = re.compile(
    rb"[\0 \t\n]*(?:" + b"|".join(b"(%b)" % re.escape(one.value) for one in _STATEMENTS) + b")"
)


def first_values(request: bytes, count: int) -> list[bytes]:
    """Return the first values of a request that begins with Parse and Bind; NULL becomes empty.

    Raise struct.error or ValueError if the request has another form or fewer values.
    """
    position = 1 + _LENGTH.unpack_from(request, 1)[0]
    # Skip the names of the portal and of the statement.
    position = request.index(b"\0", request.index(b"\0", position + _HEADER_BYTES) + 1) + 1
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
    """Follows a client's messages after the first: counts the answers they need and finds known statements."""

    def __init__(self) -> None:
        self.asked = 0
        """Messages answered by a ReadyForQuery, since this was last set to 0."""
        self.is_over = False
        """The client has sent Terminate."""
        self.statement: Statement | None = None
        """The last known statement that was found in the last `feed`; None if there was none."""
        self.is_single = False
        """The last `feed` was exactly one request, answered by one ReadyForQuery."""
        self._partial = b""
        self._remaining = 0
        self._text: bytes | None = None
        """The beginning of a statement until it is identified; None if the message has no statement."""

    def feed(self, data: bytes) -> None:
        """Parse the next bytes from the client. Raise NotPostgres."""
        self.statement = None
        begins, asked = not (self._partial or self._remaining), self.asked
        data = self._partial + data
        position, end = 0, len(data)
        while True:
            step = min(self._remaining, end - position)
            if step and self._text is not None:
                self._read_text(data[position : position + min(step, _BEGINNING_BYTES)])
            self._remaining -= step
            position += step
            if end - position < _HEADER_BYTES:
                break
            position = self._begin(data, position)
        self._partial = data[position:]
        self.is_single = begins and not (self._partial or self._remaining) and self.asked == asked + 1

    def _begin(self, data: bytes, position: int) -> int:
        kind = data[position]
        (length,) = _LENGTH.unpack_from(data, position + 1)
        if length < _LENGTH.size:
            raise NotPostgres(f"a message of {length} bytes")
        self.asked += kind in _READY_REQUESTS
        self.is_over = self.is_over or kind == _TERMINATE
        self._text = b"" if kind in _WITH_TEXT else None
        self._remaining = length - _LENGTH.size
        return position + _HEADER_BYTES

    def _read_text(self, data: bytes) -> None:
        self._text = ((self._text or b"") + data)[:_BEGINNING_BYTES]
        if (known := _KNOWN_STATEMENT.match(self._text)) is not None and known.lastindex is not None:
            self.statement, self._text = _STATEMENTS[known.lastindex - 1], None
        elif len(self._text) == _BEGINNING_BYTES:
            self._text = None


_ERROR, _READY, _AUTHENTICATION = b"E"[0], b"Z"[0], b"R"[0]
_TERMINATE = b"X"[0]
#: Parse, Query.
_WITH_TEXT = frozenset(b"PQ")
_IDLE = b"I"[0]
#: Query, Sync, FunctionCall.
_READY_REQUESTS = frozenset(b"QSF")


class StartupHandshake:
    """Collects a server's answer to a startup message until the server waits for the client: then `is_whole`.

    Until then the server has received only the startup message, which can be sent to another server.
    """

    def __init__(self) -> None:
        self.is_whole = False
        self.said = b""
        """All bytes so far, to forward once they are whole."""
        self._position = 0

    def feed(self, data: bytes) -> None:
        """Parse the next bytes from the server. Raise ServerRefused for an error, or NotPostgres."""
        self.said += data
        if len(self.said) > LONGEST_GREETING:
            raise NotPostgres("a greeting that is too long")
        while not self.is_whole and len(self.said) - self._position >= _HEADER_BYTES:
            kind = self.said[self._position]
            (length,) = _LENGTH.unpack_from(self.said, self._position + 1)
            if kind == _ERROR:
                self._refuse(length)
            if length < _LENGTH.size:
                raise NotPostgres(f"a message of {length} bytes in a greeting")
            end = self._position + 1 + length
            if len(self.said) < end:
                return
            body = self.said[self._position + _HEADER_BYTES : end]
            # AuthenticationOk (0) needs no answer, and an error can still follow it.
            self.is_whole = kind == _READY or (kind == _AUTHENTICATION and any(body[:4]))
            self._position = end

    def _refuse(self, length: int) -> None:
        text = self.said[self._position + _HEADER_BYTES :]
        if not 2 * _LENGTH.size <= length <= LONGEST_ERROR:
            # A postmaster that cannot fork sends plain text after the E.
            plain = self.said[self._position + 1 :].partition(b"\0")[0].decode(errors="replace").strip()
            raise ServerRefused(ServerError("FATAL", "unknown", plain))
        if len(text) >= length - _LENGTH.size:
            raise ServerRefused(read_error(text[: length - _LENGTH.size]))


class ServerRefused(Exception):
    """The server answered the startup message with an error."""

    def __init__(self, error: ServerError) -> None:
        super().__init__(str(error))
        self.error = error
