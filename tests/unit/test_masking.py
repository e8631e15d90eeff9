"""What must not be read in a log is not, however it is written; what explains a log stays."""

import base64
import re
import signal
import uuid
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.domain import masking
from service.domain.masking import CUT, cut, cut_front, masked

KEY = "Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmE="
numbers = st.integers(min_value=10**7, max_value=10**18 - 1).map(str)
keys = st.binary(min_size=32, max_size=64)
#: What may stand before and behind a secret in a line of Go's or Python's, or in a file of JSON.
before = st.sampled_from(
    ["", " ", "(", '"', "'", "=", ":", ": ", "key=", "from ", "[", "<", ",", "\n", "\\n", "jid:", "/"]
)
behind = st.sampled_from(["", " ", ")", '"', "'", ",", ", ", ":", ": ", "]", ">", "\n", "\\n", ".", "…", "?"])
NOTATIONS = [
    "{}", "+{}", "{}@s.whatsapp.net", "{}:12@s.whatsapp.net", "{}.0:12@s.whatsapp.net", "{}@lid", "{}:3@lid",
    "{}_1:0", "{}_1", "{}:0", "{}@c.us", "{}-1600000000@g.us", "{}@g.us", "user{}", "{}x", '{{"jid":"{}@lid"}}',
    "wa.me/{}", "tel:{}", "%2B{}", "\\u002b{}", "b'{}'", "[{} {}]", "{}/{}", "{}.5s", "id_{}_3EB0",
]  # fmt: skip


@given(number=numbers, notation=st.sampled_from(NOTATIONS), before=before, behind=behind)
def test_no_number_of_a_person_is_left_in_any_notation(number: str, notation: str, before: str, behind: str) -> None:
    text = masked(before + notation.format(number, number) + behind)
    assert number[:-2] not in text
    assert number[-2:] in text


@given(
    number=st.integers(min_value=10**9, max_value=10**15 - 1).map(str),
    separators=st.lists(st.sampled_from([" ", "-", " (", ") ", "/", ".", ""]), min_size=3, max_size=3),
)
def test_nor_one_in_groups(number: str, separators: list[str]) -> None:
    first, second, third = separators
    text = f"+{number[:2]}{first}{number[2:5]}{second}{number[5:8]}{third}{number[8:]}"
    shown = "".join(character for character in masked(f"call {text} now") if character.isdigit())
    assert shown == number[-2:]


@given(
    key=keys,
    encode=st.sampled_from(
        [
            lambda data: base64.b64encode(data).decode(),
            lambda data: base64.b64encode(data).decode().rstrip("="),
            lambda data: base64.urlsafe_b64encode(data).decode(),
            bytes.hex,
            lambda data: data.hex().upper(),
        ]
    ),
    before=before,
    behind=behind,
)
def test_no_key_is_left(key: bytes, encode: object, before: str, behind: str) -> None:
    assert callable(encode)
    text = encode(key)
    left = masked(before + text + behind)
    assert not [start for start in range(len(text) - 7) if text[start : start + 8] in left]


@given(
    ref=keys,
    fields=st.lists(keys.map(lambda data: base64.b64encode(data).decode()), min_size=3, max_size=4),
    address=st.sampled_from(["", "https://wa.me/settings/linked_devices#"]),
    before=before,
    cut=st.integers(min_value=40, max_value=400),
)
def test_no_qr_text_is_left_even_cut_short(ref: bytes, fields: list[str], address: str, before: str, cut: int) -> None:
    text = ",".join([f"{address}2@{base64.b64encode(ref).decode()}", *fields, "6"])[: len(address) + cut]
    left = masked(f"code {before}{text} on show")
    # "wa.me" is no secret; of the code itself nothing stays.
    assert not [start for start in range(len(address), len(text) - 8) if text[start : start + 8] in left]


#: What a browser, an operator or a generator may make a password of; quoted as an address wants it, or not at all.
passwords = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4, max_size=40)


@given(password=passwords, is_quoted=st.booleans(), scheme=st.sampled_from(["postgres", "redis", "socks5", "http"]))
def test_no_password_of_an_address_is_left(password: str, is_quoted: bool, scheme: str) -> None:
    written = quote(password, safe="") if is_quoted else password
    assume(written not in "user@host:1/name cannot be reached <secret> postgres redis socks5 http")
    assert written not in masked(f"{scheme}://user:{written}@host:1/name cannot be reached")


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2-x", "password = hunter2-x", "password='hunter2-x y'", 'host=h PASSWORD="hunter2-x" user=u',
        '{"token": "hunter2-x"}', "{'auth_token': 'hunter2-x'}", "?password=hunter2-x&sslmode=disable",
        "authorization: Bearer hunter2-x", "('authorization', 'Bearer hunter2-x')", "redis://:hunter2-x@host",
        "DETAIL:  Failing row contains (anna, hunter2-x, \nhunter2-x).",
        "DETAIL:  Key (jid)=(hunter2-x) already exists.",
        "invalid input for query argument $3: 'hunter2-x' (expected bytes)",
    ],
)  # fmt: skip
def test_no_other_secret_is_left(text: str) -> None:
    assert "hunter2-x" not in masked(text)


@pytest.mark.parametrize("code", ["ABCD-1234", "1234-5678", "ABCD-EFGH", "ABCD1234"])
def test_no_pairing_code_is_left(code: str) -> None:
    assert code not in masked(f"Pair code: {code}.")


@pytest.mark.parametrize(
    "text",
    [
        "Error decrypting message 3EB0C767D82B3A1F9C42 in 1.234567s",
        "3A1B2C3D4E5F60718293 and 0A1B2C3D4E5F60718293A4B5C6D7E8F9",
        "2026-11-23T22:32:37.123456Z", "2026-11-23 22:32:37.123456", "took 12345 ms", "after 0.123456789 seconds",
        "dial tcp 127.0.0.1:54321: connect: connection refused", "exited with status 3", "SQLSTATE 57P01",
        "incident 3f2504e04f8941d39a0c0305e82c3301", "owner 3f2504e0-4f89-41d3-9a0c-123456789012",
        '  File "/home/User1/zap-service/service/sessions/runner_with_a_long_name.py", line 12, in run',
        "/root/go/pkg/mod/go.mau.fi/whatsmeow@v0.0.0-20251217143725-11cf47c62d32/client.go:123 +0x1d9",
        "goroutine 12 [running]: main.f(0xc000184000, 0x12345678)",
        "page_token: must be next_page_token of the page before",
        "The session changed.", "to: does not match regex pattern `^[0-9]{5,20}@lid|[0-9-]{5,40}@g\\.us$`",
    ],
)  # fmt: skip
def test_what_explains_a_log_stays(text: str) -> None:
    assert masked(text) == text


@given(st.uuids())
def test_uuids_stay(value: uuid.UUID) -> None:
    assert masked(f"incarnation {value} claims") == f"incarnation {value} claims"


@given(st.text(st.sampled_from("0123456789az-"), min_size=1, max_size=63))
def test_the_id_of_the_session_that_a_line_is_about_stays(session_id: str) -> None:
    assert (
        masked(f"session '{session_id}' is not paired", but_for=session_id) == f"session '{session_id}' is not paired"
    )


def test_but_not_where_it_is_part_of_a_secret() -> None:
    assert "hunter2" not in masked("http://4915112345678:hunter2@proxy", but_for="4915112345678")
    assert masked("from 4915112345678", but_for="15112") == "from …78"


@given(st.text(st.sampled_from("aB1@=:/+-.,'\"( \n") | st.characters(), max_size=120))
def test_the_quick_look_misses_nothing(text: str) -> None:
    shapes, anything = masking._shapes("")
    assert masked(text) == anything.sub(lambda match: shapes[(match.lastindex or 1) - 1].replace(match[0]), text)


@given(st.text(st.sampled_from("aB1@=:/+-.,'\"( \n") | st.characters(), max_size=120))
def test_masked_twice_is_masked_once(text: str) -> None:
    """A line passes here in the session's process, and again in the node."""
    assert masked(masked(text)) == masked(text)


FILLER = "some words of a library "
CUT_SECRETS = [
    ("cannot reach postgres://zap:", "Hunter2-Xyz/Q:9w", "@db:5432/zap"),
    ('host=h password="', "Hunter2 Xyz Qwe Rty", '" user=u'),
    ("'token': '", "Hunter2 Xyz Qwe Rty", "'"),
    ("Bearer ", "Hunter2XyzQweRty", " refused"),
    ("call +", "49 (151) 234-56 7890", " now"),
    ("from ", "491512345678901", ":12@s.whatsapp.net"),
    ("identity ", KEY, " changed"),
    ("code ", f"2@AbCdEfGhIjKlMnOpQrStUv,{KEY},{KEY}", ",6 shown"),
    ("code https://wa.me/settings/linked_devices#", f"2@AbCdEfGh,{KEY},{KEY}", ",6 shown"),
    ("Pair code: ", "ABCD-1234", "."),
    ("Failing row contains (", "Anna, Hunter2, \nHunter2 Xyz", ")."),
    ("Key (jid)=(", "Hunter2 Xyz Qwe Rty", ") already exists."),
]


@pytest.mark.parametrize(("before", "secret", "behind"), CUT_SECRETS)
def test_no_half_of_a_secret_is_left_where_a_text_is_cut(before: str, secret: str, behind: str) -> None:
    text = FILLER * 200 + before + secret + behind + FILLER * 200
    start = len(FILLER) * 200 + len(before)
    for end in range(start, start + len(secret) + len(behind) + 20):
        left = masked(cut(text, end))
        assert left.endswith(CUT)
        assert len(cut(text, end)) <= end
        assert not [at for at in range(len(secret) - 3) if secret[at : at + 4] in left], left[-60:]


@pytest.mark.parametrize("text", ["", "short", "a b", " 12 "])
def test_a_short_text_is_not_cut(text: str) -> None:
    assert cut(text) == cut_front(text, 10) == text


def test_a_text_cut_twice_is_cut_once() -> None:
    once = cut(FILLER * 200)
    assert once.endswith(CUT)
    assert cut(once) == masked(once) == once


def test_a_long_password_in_an_address_goes_too() -> None:
    assert masked(f"postgres://u:{'Hunter2/' * 1000}@host") == f"postgres://{masking.SECRET}@host"
    assert masked("postgres://u:a://b://c@host,http://d:e@f") == f"postgres://{masking.SECRET}@f"


#: Each is the worst for some shape: one that looks at the rest of the text, from each place on where it could begin.
HOSTILE = [
    "1", "1234567 ", "Ab1+", "deadbeef0", "_deadbeefdeadbeef", "_a", "a=", "éa", "/", "/a", "./1", "@/a", ".", "a.",
    "://", "://a", ":", ":a", "://a ", "://@", "Key (", "Key (a)", "Key (a)=", "password", "password ", "password =",
    'password="', "password='x\"", "bearer ", "1@", "1@a,", "+1(", "+ 1", '"', "'", " ", "\n", "1.", "A1", "A", "AAAA-",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_no_shape_takes_more_for_each_character_of_a_longer_text(unit: str) -> None:
    """Of this text a shape that does takes minutes of the processor, and one that does not part of a second."""
    text = (unit * 400_000)[:400_000]

    def give_up(*_: object) -> None:
        raise AssertionError(f"{shape.pattern} looks at a text again and again")

    before = signal.signal(signal.SIGVTALRM, give_up)
    try:
        for shape in masking._shapes("")[0]:
            signal.setitimer(signal.ITIMER_VIRTUAL, 5)
            re.compile(shape.pattern).sub("", text)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
