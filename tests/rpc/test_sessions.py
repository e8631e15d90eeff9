"""SessionService over the wire: what callers get, and that nothing is left behind when they go."""

from collections.abc import Iterator
from datetime import UTC, timedelta

import grpc
import pytest
from google.rpc import error_details_pb2 as details

from service.domain.errors import LeaseLost, Unavailable
from service.domain.pairing import PairingDelayed, PairingEnded, PairingOutcome, ShownCode
from tests.eventually import eventually_in_thread
from tests.fakes.core import code
from tests.fakes.serving import FakeService
from tests.fakes.session_store import NOW
from tests.rpc.statuses import detail, error_info
from zap.v1 import session_pb2 as pb
from zap.v1.session_pb2_grpc import SessionServiceStub


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FakeService() as service:
        yield service


@pytest.fixture
def stub(service: FakeService) -> Iterator[SessionServiceStub]:
    with service.channel() as channel:
        yield SessionServiceStub(channel)


def until_closed(service: FakeService) -> None:
    eventually_in_thread(lambda: not service.sessions.open_pairings, "the end of every stream")


def test_create_is_idempotent_by_its_request_id_alone(stub: SessionServiceStub) -> None:
    request = pb.CreateRequest(session_id="a", name="Ada", proxy_url="socks5://u:hunter2@proxy.example:1080")
    request.request_id = "r"
    created = stub.Create(request)
    assert created.state == pb.Session.STATE_UNPAIRED
    assert created.proxy_url == "socks5://u:***@proxy.example:1080"
    assert stub.Create(request) == created
    request.name = "Bob"
    with pytest.raises(grpc.RpcError) as reused:
        stub.Create(request)
    assert reused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(reused.value).reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("name", ["Ada", "Bob"])
def test_create_of_an_id_that_exists_is_refused(stub: SessionServiceStub, name: str) -> None:
    stub.Create(pb.CreateRequest(session_id="a", name="Ada"))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Create(pb.CreateRequest(session_id="a", name=name))
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert error_info(caught.value).reason == "SESSION_ALREADY_EXISTS"
    assert detail(caught.value, details.ResourceInfo).resource_name == "a"


def test_list_gives_every_session_once_in_order(stub: SessionServiceStub) -> None:
    names = [f"s{number:02}" for number in range(7)]
    for name in reversed(names):
        stub.Create(pb.CreateRequest(session_id=name, labels={"odd": str(int(name[1:]) % 2)}))
    found, request = [], pb.ListRequest(page_size=3)
    sizes = []
    while True:
        page = stub.List(request)
        sizes.append(len(page.sessions))
        found += [session.session_id for session in page.sessions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert (found, sizes) == (names, [3, 3, 1])
    odd = stub.List(pb.ListRequest(labels={"odd": "1"}, page_size=3))
    assert [session.session_id for session in odd.sessions] == ["s01", "s03", "s05"]
    assert not odd.next_page_token


def test_update_changes_what_the_mask_names(stub: SessionServiceStub) -> None:
    stub.Create(pb.CreateRequest(session_id="a", name="Ada", user_id="u", labels={"k": "v"}))
    request = pb.UpdateRequest(session=pb.Session(session_id="a", user_id="w"))
    request.update_mask.paths.extend(["name", "labels"])
    updated = stub.Update(request)
    assert (updated.name, updated.user_id, dict(updated.labels)) == ("", "u", {})
    without_mask = stub.Update(pb.UpdateRequest(session=pb.Session(session_id="a", name="Bob")))
    assert (without_mask.name, without_mask.user_id) == ("Bob", "u")


def test_update_keeps_a_proxy_password_that_was_shown_as_stars(service: FakeService, stub: SessionServiceStub) -> None:
    stub.Create(pb.CreateRequest(session_id="a", proxy_url="http://u:hunter2@proxy.example:8080"))
    shown = stub.Status(pb.StatusRequest(session_id="a"))
    shown.name = "Ada"
    assert stub.Update(pb.UpdateRequest(session=shown)).name == "Ada"
    assert service.sessions.kept["a"].session.proxy_url == "http://u:hunter2@proxy.example:8080"
    shown.proxy_url, shown.etag = "http://u:***@other.example:8080", ""
    with pytest.raises(grpc.RpcError) as caught:
        stub.Update(pb.UpdateRequest(session=shown))
    violations = detail(caught.value, details.BadRequest).field_violations
    assert [violation.field for violation in violations] == ["session.proxy_url"]


def test_update_with_an_old_etag_is_aborted(stub: SessionServiceStub) -> None:
    first = stub.Create(pb.CreateRequest(session_id="a", name="Ada"))
    stub.Update(pb.UpdateRequest(session=pb.Session(session_id="a", name="Bob", etag=first.etag)))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Update(pb.UpdateRequest(session=pb.Session(session_id="a", name="Eve", etag=first.etag)))
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert error_info(caught.value).reason == "ETAG_MISMATCH"


def test_a_precondition_names_its_reason_and_its_subject(stub: SessionServiceStub) -> None:
    stub.Create(pb.CreateRequest(session_id="a"))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Restart(pb.RestartRequest(session_id="a"))
    violation = detail(caught.value, details.PreconditionFailure).violations[0]
    assert (violation.type, violation.subject) == ("SESSION_NOT_ACTIVE", "a")


def test_stream_qr_gives_the_current_code_to_everybody_and_then_the_outcome(
    service: FakeService, stub: SessionServiceStub
) -> None:
    stub.Create(pb.CreateRequest(session_id="a"))
    stub.Activate(pb.ActivateRequest(session_id="a"))
    first_code = code(1)
    service.do(service.sessions.tell, "a", ShownCode(first_code))
    first = stub.StreamQR(pb.StreamQRRequest(session_id="a"))
    shown = next(first).code
    assert (shown.text, shown.position) == (code(1).text, 1)
    assert shown.png.startswith(b"\x89PNG")
    assert shown.expire_time.ToDatetime(tzinfo=UTC) == first_code.expire_time
    service.do(service.sessions.tell, "a", ShownCode(code(2)))
    assert next(first).code.position == 2
    late = stub.StreamQR(pb.StreamQRRequest(session_id="a"))
    assert next(late).code.text == code(2).text
    service.do(service.sessions.pair, "a")
    for stream in (first, late):
        assert next(stream).outcome == pb.PAIRING_OUTCOME_PAIRED
        assert next(stream, None) is None
        assert stream.code() is grpc.StatusCode.OK
    until_closed(service)


def test_stream_qr_of_a_paired_session_says_so_at_once(service: FakeService, stub: SessionServiceStub) -> None:
    stub.Create(pb.CreateRequest(session_id="a"))
    service.do(service.sessions.pair, "a")
    responses = list(stub.StreamQR(pb.StreamQRRequest(session_id="a")))
    assert [response.outcome for response in responses] == [pb.PAIRING_OUTCOME_PAIRED]


def test_stream_qr_says_why_and_what_to_do(service: FakeService, stub: SessionServiceStub) -> None:
    stub.Create(pb.CreateRequest(session_id="a"))
    stub.Activate(pb.ActivateRequest(session_id="a"))
    service.do(service.sessions.tell, "a", ShownCode(code()))
    stream = stub.StreamQR(pb.StreamQRRequest(session_id="a"))
    next(stream)
    service.do(service.sessions.tell, "a", PairingEnded(PairingOutcome.TIMED_OUT, "QR_NOT_SCANNED"))
    response = next(stream)
    assert response.outcome == pb.PAIRING_OUTCOME_TIMED_OUT
    assert response.reason.code == "QR_NOT_SCANNED"
    assert response.reason.user_action


def test_stream_qr_says_why_there_is_no_code_and_when_it_is_tried_again(
    service: FakeService, stub: SessionServiceStub
) -> None:
    stub.Create(pb.CreateRequest(session_id="a"))
    stub.Activate(pb.ActivateRequest(session_id="a"))
    service.do(service.sessions.tell, "a", PairingDelayed("WHATSAPP_UNREACHABLE", NOW))
    stream = stub.StreamQR(pb.StreamQRRequest(session_id="a"))
    delayed = next(stream)
    assert delayed.WhichOneof("update") == "delay"
    assert (delayed.reason.code, bool(delayed.reason.user_action)) == ("WHATSAPP_UNREACHABLE", True)
    assert delayed.delay.next_attempt_time.ToDatetime() == NOW.replace(tzinfo=None)
    service.do(service.sessions.tell, "a", PairingDelayed("WHATSAPP_UNREACHABLE", None))
    assert not next(stream).delay.HasField("next_attempt_time")
    service.do(service.sessions.tell, "a", ShownCode(code(1)))
    assert next(stream).code.text == code(1).text


def test_stream_qr_before_activate_is_a_failed_precondition(stub: SessionServiceStub) -> None:
    stub.Create(pb.CreateRequest(session_id="a"))
    with pytest.raises(grpc.RpcError) as caught:
        next(stub.StreamQR(pb.StreamQRRequest(session_id="a")))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error_info(caught.value).reason == "SESSION_NOT_ACTIVE"


@pytest.mark.parametrize("ending", ["cancel", "deadline"])
def test_a_subscriber_that_goes_leaves_nothing_behind(
    service: FakeService, stub: SessionServiceStub, ending: str
) -> None:
    stub.Create(pb.CreateRequest(session_id="a"))
    stub.Activate(pb.ActivateRequest(session_id="a"))
    service.do(service.sessions.tell, "a", ShownCode(code(1)))
    stream = stub.StreamQR(pb.StreamQRRequest(session_id="a"), timeout=0.5 if ending == "deadline" else None)
    next(stream)
    if ending == "cancel":
        stream.cancel()
    else:
        with pytest.raises(grpc.RpcError):
            next(stream)
    until_closed(service)
    assert service.registry.get_sample_value(
        "zap_rpc_open_streams", {"method": "zap.v1.SessionService/StreamQR"}
    ) == pytest.approx(0)


def test_draining_ends_streams_with_a_word_on_when_to_retry(service: FakeService, stub: SessionServiceStub) -> None:
    stub.Create(pb.CreateRequest(session_id="a"))
    stub.Activate(pb.ActivateRequest(session_id="a"))
    service.do(service.sessions.tell, "a", ShownCode(code(1)))
    stream = stub.StreamQR(pb.StreamQRRequest(session_id="a"))
    next(stream)
    service.run(service.server.drain())
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert error_info(caught.value).reason == "NODE_DRAINING"
    assert detail(caught.value, details.RetryInfo).retry_delay.ToTimedelta() > timedelta()
    until_closed(service)
    assert stub.Status(pb.StatusRequest(session_id="a")).session_id == "a", "calls are still served"
    late = stub.StreamQR(pb.StreamQRRequest(session_id="a"))
    with pytest.raises(grpc.RpcError) as refused:
        next(late)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("error", [Unavailable("not now", retry_after=2.5), LeaseLost("not ours", retry_after=2.5)])
def test_unavailable_says_when_to_retry(service: FakeService, stub: SessionServiceStub, error: Unavailable) -> None:
    service.sessions.store.broken = error
    with pytest.raises(grpc.RpcError) as caught:
        stub.Status(pb.StatusRequest(session_id="a"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert detail(caught.value, details.RetryInfo).retry_delay.ToTimedelta() == timedelta(seconds=2.5)


def test_what_nobody_expected_is_internal_and_says_nothing_of_the_inside(
    service: FakeService, stub: SessionServiceStub
) -> None:
    service.sessions.store.broken = RuntimeError("postgres://zap:hunter2@db/zap")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Status(pb.StatusRequest(session_id="a"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    info = error_info(caught.value)
    assert info.metadata["incident"] in str(caught.value.details())
    assert "hunter2" not in str(caught.value)
    assert "postgres" not in str(caught.value)


def test_a_pairing_code_and_a_delete_go_through(service: FakeService, stub: SessionServiceStub) -> None:
    stub.Create(pb.CreateRequest(session_id="a"))
    stub.Activate(pb.ActivateRequest(session_id="a"))
    service.do(service.sessions.tell, "a", ShownCode(code()))
    answer = stub.RequestPairingCode(pb.RequestPairingCodeRequest(session_id="a", phone="+4917612345678"))
    assert answer.code == "ABCD-2345"
    service.do(service.sessions.pair, "a")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Delete(pb.DeleteRequest(session_id="a"))
    assert error_info(caught.value).reason == "SESSION_PAIRED"
    stub.Delete(pb.DeleteRequest(session_id="a", force=True))
    assert not service.sessions.kept


def test_logout_and_deactivate_answer_with_the_session(service: FakeService, stub: SessionServiceStub) -> None:
    stub.Create(pb.CreateRequest(session_id="a"))
    service.do(service.sessions.pair, "a")
    assert stub.Deactivate(pb.DeactivateRequest(session_id="a")).state == pb.Session.STATE_DISCONNECTED
    with pytest.raises(grpc.RpcError) as caught:
        stub.Logout(pb.LogoutRequest(session_id="a"))
    assert error_info(caught.value).reason == "SESSION_NOT_CONNECTED"
    service.do(service.sessions.pair, "a")
    assert stub.Logout(pb.LogoutRequest(session_id="a")).state == pb.Session.STATE_LOGGED_OUT
