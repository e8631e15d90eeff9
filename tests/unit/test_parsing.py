"""What requests become, and what is said about those that are wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import InvalidArgument
from service.domain.proxies import check_proxy, hide_password
from service.domain.session import State
from service.ports.sessions import Changes, SessionFilter
from service.protocol import parsing
from service.protocol.validation import MOST_VIOLATIONS, read_request
from zap.v1 import message_pb2
from zap.v1 import session_pb2 as pb


def fields_of(caught: pytest.ExceptionInfo[InvalidArgument]) -> list[str]:
    return [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize(
    "url",
    [
        "http://proxy.example:3128",
        "https://proxy.example:443/",
        "socks5://user:pass@10.0.0.1:1080",
        "SOCKS5H://user@proxy.example.:1080",
        "http://[2001:db8::1]:80",
        "http://u%40x:p%3Aw@my_proxy:1",
    ],
)
def test_a_proxy_that_can_be_used_is_taken(url: str) -> None:
    check_proxy(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://h:1", "begin with"),
        ("proxy:1080", "begin with"),
        ("http://h", "port"),
        ("http://h:0", "port"),
        ("http://h:65536", "URL"),
        ("http://h:1/path", "end after the port"),
        ("http://h:1?", "end after the port"),
        ("http://h:1#f", "end after the port"),
        ("http://:1", "host"),
        ("http://h h:1", "spaces"),
        ("http://h:1\x00", "control"),
        ("http://[::1:1", "URL"),
        ("http://[zz]:1", "IPv6|URL"),
    ],
)
def test_a_proxy_that_cannot_be_used_says_what_would_be_right(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_proxy(url.replace("://", "://user:hunter2@") if "@" not in url and "[" not in url else url)


@given(st.text())
def test_no_proxy_makes_the_check_fail_in_another_way_nor_shows_its_password(url: str) -> None:
    said = ""
    try:
        check_proxy(f"http://user:hunter2@{url}")
    except ValueError as error:
        said = str(error)
    assert "hunter2" not in said
    assert "hunter2" not in hide_password(f"http://user:hunter2@{url}") or "hunter2" in url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("http://h:1", "http://h:1"),
        ("http://user@h:1", "http://user@h:1"),
        ("http://user:p@h:1", "http://user:***@h:1"),
        ("http://user:p:q@h:1", "http://user:***@h:1"),
        ("http://[", "***"),
    ],
)
def test_a_password_is_shown_as_stars(url: str, shown: str) -> None:
    assert hide_password(url) == shown


def test_changes_are_what_the_mask_names_and_nothing_else() -> None:
    request = pb.UpdateRequest(session=pb.Session(session_id="a", name="n", user_id="u"))
    assert parsing.changes(request) == Changes(name="n", user_id="u")
    request.update_mask.paths.append("labels")
    assert parsing.changes(request) == Changes(labels={})
    request.update_mask.paths[:] = ["*"]
    assert parsing.changes(request) == Changes("n", "u", {}, "")


@pytest.mark.parametrize(
    ("session", "paths", "field"),
    [
        (pb.Session(session_id="a"), ["state"], "update_mask"),
        (pb.Session(session_id="a"), ["nonsense"], "update_mask"),
        (pb.Session(session_id="a"), ["name", "*"], "update_mask"),
        (pb.Session(), ["name"], "session.session_id"),
        (pb.Session(session_id="A"), ["name"], "session.session_id"),
        (pb.Session(session_id="a", name="x" * 201), [], "session.name"),
        (pb.Session(session_id="a", labels={"Ü": "x"}), ["labels"], 'session.labels["Ü"]'),
        (pb.Session(session_id="a", proxy_url="nonsense"), [], "session.proxy_url"),
    ],
)
def test_a_wrong_update_names_the_field(session: pb.Session, paths: list[str], field: str) -> None:
    request = pb.UpdateRequest(session=session)
    request.update_mask.paths.extend(paths)
    with pytest.raises(InvalidArgument) as caught:
        parsing.changes(request)
    assert set(fields_of(caught)) == {field}


@pytest.mark.parametrize(("asked", "given_back"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_a_page_has_its_bounds(asked: int, given_back: int) -> None:
    assert parsing.page(pb.ListRequest(page_size=asked)).size == given_back


@given(
    st.from_regex("[a-z0-9-]{1,63}", fullmatch=True),
    st.builds(
        SessionFilter,
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        st.lists(st.sampled_from(State), unique=True).map(lambda states: tuple(sorted(states, key=lambda s: s.name))),
        st.dictionaries(st.sampled_from("ab"), st.text("xy", max_size=2)),
    ),
)
def test_a_page_token_brings_its_position_back(last: str, chosen: SessionFilter) -> None:
    token = parsing.page_token(chosen, last)
    request = pb.ListRequest(
        page_token=token,
        user_id=chosen.user_id,
        states=[pb.Session.State.Value(f"STATE_{state.name}") for state in reversed(chosen.states)],
        labels=chosen.labels,
    )
    assert parsing.page(request) == parsing.Page(chosen, last, 50)
    for position in range(len(token)):
        request.page_token = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
        with pytest.raises(InvalidArgument) as caught:
            parsing.page(request)
        assert fields_of(caught) == ["page_token"]


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"\x12\x01\xff", "name"),
        (b"\x0a\x03\xed\xa0\x80", "session_id"),
        (b"\x22\x05\x0a\x01k\x12\x00\x22\x06\x0a\x01k\x12\x01\xff", "labels"),
        (b"\xff\xff", "request"),
        (b"\x12\x05ab", "request"),
    ],
)
def test_bytes_that_do_not_decode_name_the_field_if_they_can(raw: bytes, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_request(raw, pb.CreateRequest.FromString)
    assert fields_of(caught) == [field]
    assert caught.value.reason == "MALFORMED_REQUEST"


def test_a_string_within_a_message_that_is_not_text_is_named_by_its_path() -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_request(b"\x0a\x03\x12\x01\xff", pb.UpdateRequest.FromString)
    assert fields_of(caught) == ["session.name"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.CreateRequest(name="a\0"), "name"),
        (pb.CreateRequest(labels={"k": "\0"}), "labels"),
        (pb.ListRequest(user_id="\0"), "user_id"),
        (pb.UpdateRequest(session=pb.Session(session_id="a", name="\0")), "session.name"),
        (
            message_pb2.SendRequest(
                session_id="a", to="4917612345678", request_id="r", text=message_pb2.Text(body="a\0b")
            ),
            "text.body",
        ),
    ],
)
def test_nul_is_refused_wherever_it_is(request_: pb.CreateRequest, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_request(request_.SerializeToString(), type(request_).FromString)
    assert field in fields_of(caught)


def test_a_caller_is_told_a_bounded_number_of_violations() -> None:
    request = pb.CreateRequest(labels={f"Ü{number}": "x" for number in range(32)})
    with pytest.raises(InvalidArgument) as caught:
        read_request(request.SerializeToString(), pb.CreateRequest.FromString)
    assert len(caught.value.violations) == MOST_VIOLATIONS
