"""MessageService over the wire."""

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2 as details

from service.domain.records import MessageState
from service.domain.send_failures import SendFailure
from service.ports.processes import CallFailed
from tests.contents import text_content
from tests.fakes.serving import FakeService
from tests.rpc.statuses import detail, error_info
from zap.v1 import message_pb2 as pb
from zap.v1 import session_pb2
from zap.v1.message_pb2_grpc import MessageServiceStub
from zap.v1.session_pb2_grpc import SessionServiceStub


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FakeService() as service, service.channel() as channel:
        SessionServiceStub(channel).Create(session_pb2.CreateRequest(session_id="a"))
        service.do(service.sessions.pair, "a")
        yield service


@pytest.fixture
def stub(service: FakeService) -> Iterator[MessageServiceStub]:
    with service.channel() as channel:
        yield MessageServiceStub(channel)


def request(**fields: str) -> pb.SendRequest:
    values = {"session_id": "a", "to": "+4917612345678", "request_id": "r"} | fields
    body = values.pop("body", "hello")
    return pb.SendRequest(text=pb.Text(body=body), **values)


@pytest.mark.parametrize(
    ("to", "jid"),
    [
        ("+4917612345678", "4917612345678@s.whatsapp.net"),
        ("4917612345678", "4917612345678@s.whatsapp.net"),
        ("4917612345678@s.whatsapp.net", "4917612345678@s.whatsapp.net"),
        ("123456789@lid", "123456789@lid"),
        ("12345-67890@g.us", "12345-67890@g.us"),
    ],
)
def test_a_recipient_becomes_a_jid(stub: MessageServiceStub, to: str, jid: str) -> None:
    assert stub.Send(request(to=to)).to == jid


def test_the_same_request_id_gives_the_same_message(service: FakeService, stub: MessageServiceStub) -> None:
    sent = stub.Send(request())
    assert sent.state == pb.Message.STATE_SENT
    assert stub.Send(request()) == sent
    assert stub.Get(pb.GetRequest(session_id="a", request_id="r")) == sent
    assert service.sessions.owner.sent == [text_content("hello")]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Send(request(body="something else"))
    assert error_info(caught.value).reason == "REQUEST_ID_REUSED"
    assert detail(caught.value, details.BadRequest).field_violations[0].field == "request_id"


@pytest.mark.parametrize(
    ("state", "reason"), [(MessageState.FAILED, "NOT_SENT"), (MessageState.OUTCOME_UNKNOWN, "OUTCOME_UNKNOWN")]
)
def test_a_message_that_was_not_sent_says_why_and_what_to_do(
    service: FakeService, stub: MessageServiceStub, state: MessageState, reason: str
) -> None:
    refusal = CallFailed("no", certain=state is MessageState.FAILED, is_answer=True)
    service.sessions.owner.refuses_to_send = refusal
    service.sending.store.in_library["a", "r"] = "WA1"
    message = stub.Send(request())
    assert message.reason.code == reason
    assert message.reason.message
    assert message.reason.user_action
    assert not message.HasField("sent_time")


def test_a_message_that_was_refused_says_how(service: FakeService, stub: MessageServiceStub) -> None:
    refusal = CallFailed("no", certain=True, failure=SendFailure.ACCOUNT_RESTRICTED, is_answer=True)
    service.sessions.owner.refuses_to_send = refusal
    assert stub.Send(request()).reason.code == "ACCOUNT_RESTRICTED"
    assert stub.Get(pb.GetRequest(session_id="a", request_id="r")).reason.code == "ACCOUNT_RESTRICTED"


def test_a_message_that_is_not_sent_by_the_deadline_is_accepted(service: FakeService, stub: MessageServiceStub) -> None:
    service.sessions.owner.holds_sends = True
    assert stub.Send(request(), timeout=1).state == pb.Message.STATE_ACCEPTED


def test_an_unknown_message_is_not_found_as_a_message(stub: MessageServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Get(pb.GetRequest(session_id="a", request_id="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    resource = detail(caught.value, details.ResourceInfo)
    assert (resource.resource_type, resource.resource_name) == ("zap.v1.Message", "a/other")
