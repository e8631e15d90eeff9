"""How the relay reads what passes through it, whatever pieces it comes in."""

import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.pgrelay.framing import (
    LONGEST_ERROR,
    LONGEST_GREETING,
    LONGEST_STARTUP,
    ClientMessages,
    NotPostgres,
    ServerMessages,
    ServerRefused,
    StartupHandshake,
    StartupKind,
    first_message,
    read_error,
)
from tests.fakes.postgres_messages import (
    AUTHENTICATED,
    CANCEL_REQUEST,
    GSS_REQUEST,
    PASSWORD_WANTED,
    QUERY,
    READY,
    ROW,
    SSL_REQUEST,
    SYNC,
    TERMINATE,
    error,
    message,
    startup,
)

HARMLESS = error("ERROR", "42P01", 'relation "x" does not exist')
FATAL = error("FATAL", "57P01", "terminating connection due to administrator command")

#: Bodies that look like what they are not.
bodies = st.one_of(st.binary(max_size=40), st.sampled_from([FATAL, READY, TERMINATE, b"E", b"EEEEE\0"]))
answers = st.one_of(
    st.builds(message, st.sampled_from("RSKDTC123nIANt"), bodies),
    st.sampled_from([READY, HARMLESS, ROW]),
)
requests = st.builds(message, st.sampled_from("QPBDESHCpXF"), bodies)


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The data, cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]


cut_places = st.lists(st.integers(0, 10_000), max_size=30)


@given(st.lists(answers, max_size=12), cut_places)
def test_what_a_server_says_passes_unchanged(said: list[bytes], cuts: list[int]) -> None:
    framing = ServerMessages()
    whole = b"".join(said)
    passed = b"".join(bytes(framing.feed(piece)) for piece in pieces(whole, cuts))
    assert passed == whole
    assert framing.loss is None
    assert framing.ready == said.count(READY)


@given(st.lists(answers, max_size=8), cut_places)
def test_of_a_loss_not_a_byte_is_passed_on_and_all_that_came_before_it(said: list[bytes], cuts: list[int]) -> None:
    framing = ServerMessages()
    whole = b"".join(said) + FATAL + READY
    passed = b"".join(bytes(framing.feed(piece)) for piece in pieces(whole, cuts))
    assert framing.loss is not None
    assert framing.loss.code == "57P01"
    assert passed == b"".join(said)


@given(st.lists(answers, max_size=6))
def test_byte_by_byte(said: list[bytes]) -> None:
    framing = ServerMessages()
    whole = b"".join(said) + FATAL
    passed = b"".join(bytes(framing.feed(whole[at : at + 1])) for at in range(len(whole)))
    assert passed == b"".join(said)
    assert framing.loss is not None


@pytest.mark.parametrize(
    ("severity", "code", "is_loss"),
    [
        ("FATAL", "57P01", True),
        ("FATAL", "53300", True),
        ("FATAL", "28P01", True),
        ("PANIC", "XX000", True),
        ("ERROR", "57P01", True),
        ("ERROR", "57P03", True),
        # PgBouncer's "server conn crashed?" and "query_wait_timeout".
        ("ERROR", "08P01", True),
        ("FATAL", "08P01", True),
        ("ERROR", "08006", True),
        # Of a role's statement_timeout.
        ("ERROR", "57014", True),
        ("ERROR", "23505", False),
        ("ERROR", "42P01", False),
        ("ERROR", "22P02", False),
        # What the server cannot do just now: a disk that is full, a deadlock, a lock, a standby, a fault of its own.
        ("ERROR", "53100", True),
        ("ERROR", "58030", True),
        ("ERROR", "XX000", True),
        ("ERROR", "40P01", True),
        ("ERROR", "40001", True),
        ("ERROR", "55P03", True),
        ("ERROR", "25006", True),
    ],
)
def test_which_errors_are_a_loss(severity: str, code: str, is_loss: bool) -> None:
    framing = ServerMessages()
    passed = framing.feed(error(severity, code))
    assert (framing.loss is not None, bool(passed)) == (is_loss, not is_loss)


def test_who_cancels_hears_of_it() -> None:
    framing = ServerMessages()
    framing.may_be_cancelled = True
    assert framing.feed(error("ERROR", "57014") + READY)
    framing.feed(error("ERROR", "57014") + READY)
    assert framing.loss is not None, "that was for the one before"


def test_the_severity_counts_in_whatever_language_the_server_speaks() -> None:
    # V is never translated; servers before 9.6 and PgBouncer do not send it.
    assert read_error(b"SFATALT\0VFATAL\0C57P01\0Mterminando\0\0").is_loss
    assert not read_error(b"SFEHLER\0VERROR\0C42P01\0Mgibt es nicht\0\0").is_loss
    assert read_error(b"SFATAL\0C42P01\0Mold\0\0").is_loss


def test_words_come_from_the_error_and_only_from_what_says_what_happened() -> None:
    body = error("FATAL", "57P01", "bye", D="a row of somebody's", q="SELECT secret")[5:]
    assert str(read_error(body)) == "FATAL 57P01: bye"


@pytest.mark.parametrize("body", [b"", b"\0", b"nonsense", b"M\0\0", b"Conly a code\0\0"])
def test_an_error_that_says_nothing_is_the_worst(body: bytes) -> None:
    assert read_error(body).is_loss


def test_a_long_error_is_judged_by_its_beginning_and_passes_whole() -> None:
    framing = ServerMessages()
    whole = error("ERROR", "22P02", "x" * (3 * LONGEST_ERROR)) + READY
    parts = [whole[at : at + 10_000] for at in range(0, len(whole), 10_000)]
    held = longest = 0
    passed = b""
    for part in parts:
        passed += framing.feed(part)
        held += len(part)
        longest = max(longest, held - len(passed))
    assert passed == whole
    assert longest <= LONGEST_ERROR + 10_000
    assert framing.ready == 1
    framing = ServerMessages()
    assert framing.feed(error("FATAL", "57P01", "x" * (3 * LONGEST_ERROR))) == b""
    assert framing.loss is not None


def test_a_large_row_passes_as_it_comes() -> None:
    framing = ServerMessages()
    size = 500_000_000
    assert bytes(framing.feed(b"D" + struct.pack("!I", size + 4))) == b"D" + struct.pack("!I", size + 4)
    piece = bytes(65536)
    for _ in range(100):
        assert framing.feed(piece) is piece, "without even a copy"


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_message_without_a_length_is_no_message(length: int) -> None:
    with pytest.raises(NotPostgres):
        ServerMessages().feed(b"D" + struct.pack("!I", length))
    with pytest.raises(NotPostgres):
        ClientMessages().feed(b"Q" + struct.pack("!I", length))
    with pytest.raises(NotPostgres):
        StartupHandshake().feed(b"R" + struct.pack("!I", length))
    framing = ServerMessages()
    framing.feed(b"E" + struct.pack("!I", length))
    assert framing.loss is not None, "for an error that is the end as well"


@given(st.lists(requests, max_size=12), cut_places)
@example([TERMINATE, QUERY], [])
def test_what_a_client_says_is_followed(said: list[bytes], cuts: list[int]) -> None:
    framing = ClientMessages()
    for piece in pieces(b"".join(said), cuts):
        framing.feed(piece)
    assert framing.asked == sum(asked[:1] in b"QSF" for asked in said)
    assert framing.is_over == any(asked[:1] == b"X" for asked in said)


# --- how a connection begins


@given(cut_places, st.sampled_from([startup(user="me"), SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST]))
def test_the_first_message_is_known_when_it_is_whole(cuts: list[int], first: bytes) -> None:
    received = b""
    for piece in pieces(first + b"more", cuts):
        received += piece
        known = first_message(received)
        if len(received) < len(first):
            assert known is None
        else:
            assert known is not None
            assert known[1] == first


def test_what_a_client_may_want_first() -> None:
    wants = {
        startup(user="me"): StartupKind.SESSION,
        CANCEL_REQUEST: StartupKind.CANCEL,
        SSL_REQUEST: StartupKind.ENCRYPTION,
        GSS_REQUEST: StartupKind.ENCRYPTION,
    }
    assert {said: first_message(said)[0] for said in wants} == wants  # type: ignore[index]


@pytest.mark.parametrize("length", [0, 7, LONGEST_STARTUP + 1, 0xFFFFFFFF, struct.unpack("!I", b"GET ")[0]])
def test_what_does_not_begin_like_a_client_is_none(length: int) -> None:
    with pytest.raises(NotPostgres):
        first_message(struct.pack("!II", length, 196608))


NOTICE = message("N", b"SNOTICE\0Mhello\0\0")
STATUS = message("S", b"server_version\0" + b"18.6\0")
KEY = message("K", bytes(8))


@given(cut_places, st.sampled_from([[PASSWORD_WANTED], [AUTHENTICATED, STATUS, KEY, READY], [NOTICE, PASSWORD_WANTED]]))
def test_a_greeting_is_whole_when_the_server_waits(cuts: list[int], said: list[bytes]) -> None:
    greeting = StartupHandshake()
    whole = b"".join(said)
    fed = 0
    for piece in pieces(whole, cuts):
        assert not greeting.is_whole
        greeting.feed(piece)
        fed += len(piece)
        assert greeting.is_whole == (fed == len(whole))
    assert greeting.said == whole


@given(cut_places, st.sampled_from([[], [NOTICE], [AUTHENTICATED], [AUTHENTICATED, STATUS, KEY]]))
def test_a_greeting_can_be_a_refusal(cuts: list[int], before: list[bytes]) -> None:
    greeting = StartupHandshake()
    refusal = error("FATAL", "53300", "sorry, too many clients already")
    with pytest.raises(ServerRefused, match="FATAL 53300: sorry, too many clients already"):
        feed(greeting, pieces(b"".join(before) + refusal, cuts))
    assert not greeting.is_whole


def test_a_postmaster_that_cannot_fork_says_so_without_a_length() -> None:
    with pytest.raises(ServerRefused, match="could not fork new process for connection: Cannot allocate memory"):
        StartupHandshake().feed(b"Ecould not fork new process for connection: Cannot allocate memory\n\0")


def feed(greeting: StartupHandshake, said: Iterable[bytes]) -> None:
    for piece in said:
        greeting.feed(piece)


def test_a_server_that_does_not_stop_talking_is_none() -> None:
    greeting = StartupHandshake()
    with pytest.raises(NotPostgres):
        feed(greeting, [STATUS] * (LONGEST_GREETING // len(STATUS) + 2))


def test_a_goodbye_that_is_only_part_of_a_message_is_none() -> None:
    framing = ClientMessages()
    framing.feed(message("Q", TERMINATE + SYNC))
    assert (framing.asked, framing.is_over) == (1, False)
