import pytest

from service.domain.masking import CUT, LONGEST_TEXT_CHARACTERS, SECRET
from service.worker.process.redaction import redact

KEY = "Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmE="


@pytest.mark.parametrize(
    ("secret", "line"),
    [
        (KEY, f"Emitting QR code https://wa.me/settings/linked_devices#2@ref,{KEY},{KEY},{KEY},6"),
        (KEY, f"code 2@AbCdEfGh,{KEY},{KEY},{KEY},6 shown"),
        ("ABCD-1234", "Pair code: ABCD-1234"),
        ("hunter2", "cannot connect to postgres://zap:hunter2@host/db"),
        ("hunter2", "proxy socks5://user:hunter2@10.0.0.1:1080 refused"),
        ("hunter2", "dsn password=hunter2 host=x"),
        ("49170000000", "Failed to handle message from 491700000001:12@s.whatsapp.net"),
        ("12036301", "group 120363012345678901@g.us"),
        (KEY, f"identity {KEY} changed"),
        ("deadbeefdeadbeef", "hash deadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeef1234567A"),
    ],
)
def test_nothing_secret_or_personal_is_left(secret: str, line: str) -> None:
    assert secret not in redact(line)


@pytest.mark.parametrize(
    "line",
    [
        "Got 515 code, reconnecting",
        "Successfully authenticated",
        "failed to dial: dial tcp 127.0.0.1:443: connect: connection refused",
        "Node handling took 5.2s for <iq>",
        "expected handshake response status code 101 but got 502",
    ],
)
def test_ordinary_lines_stay(line: str) -> None:
    assert redact(line) == line


def test_two_numbers_can_be_told_apart() -> None:
    assert redact("491700000001") != redact("491700000002")


@pytest.mark.parametrize("text", ["x ", "x", "bearer a ", "https://a@b "])
def test_a_line_is_not_longer_than_it_may_be(text: str) -> None:
    line = redact(text * 2 * LONGEST_TEXT_CHARACTERS)
    assert len(line) <= LONGEST_TEXT_CHARACTERS
    assert line.endswith(CUT)
    assert redact(line) == line


def test_a_cut_line_still_says_so_where_the_rest_of_it_is_masked() -> None:
    assert redact("Failing row contains (" + "x, " * 1000) == f"Failing row contains ({SECRET}).{CUT}"


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (
            'Node handling took 6.1s for <message notify="Marker Friend" id="A1"/>',
            "Node handling took 6.1s for <message>",
        ),
        (
            'Node handling is taking long for <message notify="Marker Friend"/> (started 5s ago)',
            "Node handling is taking long for <message>",
        ),
        ('Failed to handle <iq type="set"><a>Marker Friend</a></iq>: x', "Failed to handle <iq>"),
        ("Waiting for the <node>", "Waiting for the <node>"),
    ],
)
def test_a_line_contains_no_more_of_a_stanza_than_its_tag(line: str, left: str) -> None:
    assert redact(line) == left
