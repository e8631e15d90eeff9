"""Whatever callers send: INVALID_ARGUMENT that names the field, and nothing changes. Never INTERNAL, never UNKNOWN.

These hold for any server: they are tried on one with a core in memory and on the whole service.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2 as details
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.rpc import bad_requests
from tests.rpc.bad_requests import METHODS, STREAMS
from tests.rpc.statuses import detail, error_info
from zap.v1 import session_pb2
from zap.v1.session_pb2_grpc import SessionServiceStub

ALLOWED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
}

checked = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module", params=["core in memory", "whole service"])
def channel(request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    """To a server of each kind in turn."""
    if request.param == "core in memory":
        yield request.getfixturevalue("fake_channel")
    else:
        with grpc.insecure_channel(request.getfixturevalue("whole_service").address) as channel:
            yield channel


@pytest.fixture(scope="module", autouse=True)
def known(channel: grpc.Channel) -> Iterator[None]:
    """Sessions that bad input must leave alone."""
    stub = SessionServiceStub(channel)
    for session_id in ("known", "other"):
        stub.Create(session_pb2.CreateRequest(session_id=session_id, name="n", user_id="u", labels={"k": "v"}))
    yield
    for session_id in ("known", "other"):
        stub.Delete(session_pb2.DeleteRequest(session_id=session_id))


def everything(channel: grpc.Channel) -> list[session_pb2.Session]:
    """All that a server has, page by page."""
    stub, found, token = SessionServiceStub(channel), list[session_pb2.Session](), ""
    while True:
        page = stub.List(session_pb2.ListRequest(page_size=1000, page_token=token))
        found += page.sessions
        token = page.next_page_token
        if not token:
            return found


def call(channel: grpc.Channel, method: str, raw: bytes) -> grpc.RpcError | None:
    """Send bytes as they are; the error that they are answered with."""
    try:
        # Without serialisers a channel sends bytes as they are, which its stubs do not know.
        bare: Any = channel
        if method in STREAMS:
            for _ in bare.unary_stream(method)(raw, timeout=10):
                return None
        else:
            bare.unary_unary(method)(raw, timeout=10)
    except grpc.RpcError as error:
        return error
    return None


def refused(channel: grpc.Channel, method: str, raw: bytes) -> grpc.RpcError:
    """The error that bytes are answered with; nothing has changed by them."""
    (error,) = all_refused(channel, [(method, raw)])
    return error


def all_refused(channel: grpc.Channel, calls: Sequence[tuple[str, bytes]]) -> list[grpc.RpcError]:
    """The errors that so many calls are answered with; nothing has changed by them."""
    before = everything(channel)
    found = [call(channel, *sent) for sent in calls]
    errors = [error for error in found if error is not None]
    assert len(errors) == len(found), "one was accepted"
    assert everything(channel) == before
    return errors


@given(sent=bad_requests.wrong_fields())
@checked
def test_a_wrong_field_is_named_and_changes_nothing(channel: grpc.Channel, sent: tuple[str, bytes]) -> None:
    error = refused(channel, *sent)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
    violations = detail(error, details.BadRequest).field_violations
    assert violations
    assert all(violation.field and violation.description for violation in violations)
    assert error_info(error).domain == "zap.v1"


@given(sent=bad_requests.rubbish())
@checked
def test_bytes_that_are_no_request_are_an_invalid_argument(channel: grpc.Channel, sent: tuple[str, bytes]) -> None:
    error = refused(channel, *sent)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
    assert detail(error, details.BadRequest).field_violations


@given(sent=bad_requests.anything())
@example(sent=("/zap.v1.SessionService/Update", b"\x0a\x00"))
@checked
def test_any_bytes_at_all_get_an_answer_that_is_not_internal(channel: grpc.Channel, sent: tuple[str, bytes]) -> None:
    method, raw = sent
    if method.endswith(("/Create", "/Update")):
        # The only ones that random bytes could make something with: an empty Create is a good one.
        raw += session_pb2.CreateRequest(name="x" * 201).SerializeToString() if method.endswith("/Create") else b""
    error = call(channel, method, raw)
    assert error is None or error.code() in ALLOWED, error.details()


@given(session_id=st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=20, max_size=63))
@checked
def test_what_does_not_exist_is_not_found_by_any_call(channel: grpc.Channel, session_id: str) -> None:
    calls = [
        (method, kind(**(bad_requests.good(kind) | {"session_id": session_id})).SerializeToString())
        for method, kind in METHODS.items()
        if "session_id" in kind.DESCRIPTOR.fields_by_name and kind is not session_pb2.CreateRequest
    ]
    for (method, _), error in zip(calls, all_refused(channel, calls), strict=True):
        assert error.code() is grpc.StatusCode.NOT_FOUND, (method, error.details())


def test_a_request_with_many_wrong_labels_gets_an_answer_that_fits_into_headers(channel: grpc.Channel) -> None:
    raw = session_pb2.CreateRequest(labels={"Ü" * 60 + str(n): "x" * 300 for n in range(500)}).SerializeToString()
    error = call(channel, "/zap.v1.SessionService/Create", raw)
    assert error is not None
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_page_token_is_good_for_its_filters_only(channel: grpc.Channel) -> None:
    stub = SessionServiceStub(channel)
    page = stub.List(session_pb2.ListRequest(page_size=1))
    assert page.next_page_token
    for request in (
        session_pb2.ListRequest(page_token=page.next_page_token, user_id="u"),
        session_pb2.ListRequest(page_token=page.next_page_token, states=[session_pb2.Session.STATE_UNPAIRED]),
        session_pb2.ListRequest(page_token=page.next_page_token, labels={"k": "v"}),
        session_pb2.ListRequest(page_token=page.next_page_token[:-1]),
        session_pb2.ListRequest(page_token="A" + page.next_page_token),
    ):
        error = refused(channel, "/zap.v1.SessionService/List", request.SerializeToString())
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [v.field for v in detail(error, details.BadRequest).field_violations] == ["page_token"]
