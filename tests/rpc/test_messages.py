"""MessageService over the wire."""

from collections.abc import Iterator
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2 as details

from service.domain.records import MessageState
from service.domain.send_failures import SendFailure
from service.ports.processes import CallFailed
from tests.contents import payload, text_content
from tests.fakes.serving import FakeService
from tests.rpc.statuses import detail, error_info
from zap.v1 import message_pb2 as pb
from zap.v1 import session_pb2
from zap.v1.message_pb2_grpc import MessageServiceStub
from zap.v1.session_pb2_grpc import SessionServiceStub
from zap.worker.v1 import calls_pb2

T = TypeVar("T", pb.EditRequest, pb.RevokeRequest, pb.PinInChatRequest)


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
    values: dict[str, Any] = {"session_id": "a", "to": "+4917612345678", "request_id": "r"} | fields
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


def sent_contents(service: FakeService, kind: type[T]) -> list[T]:
    """What the session's process was given to send, of one type."""
    sent = service.sessions.owner.sent
    return [kind.FromString(content.data) for content in sent if content.kind == kind.DESCRIPTOR.full_name]


def test_what_is_about_a_message_refers_to_it_by_the_id_and_the_chat_that_whatsapp_gave(
    service: FakeService, stub: MessageServiceStub
) -> None:
    sent = stub.Send(request())
    assert (sent.kind, sent.chat) == (pb.Message.KIND_MESSAGE, "4917612345678@lid")
    reference, resolved = (
        pb.MessageRef(request_id="r"),
        pb.MessageRef(message_id=sent.message_id, chat=sent.chat, from_me=True),
    )
    ids: dict[str, Any] = {"session_id": "a", "target": reference}
    edit = stub.Edit(pb.EditRequest(**ids, request_id="edit", text=pb.Text(body="hi")))
    pin = stub.PinInChat(pb.PinInChatRequest(**ids, request_id="pin"))
    revoke = stub.Revoke(pb.RevokeRequest(**ids, request_id="revoke"))
    assert [message.kind for message in (edit, pin, revoke)] == [
        pb.Message.KIND_EDIT,
        pb.Message.KIND_PIN,
        pb.Message.KIND_REVOKE,
    ]
    assert {message.to for message in (edit, pin, revoke)} == {sent.chat}
    assert stub.Get(pb.GetRequest(session_id="a", request_id="edit")) == edit
    assert sent_contents(service, pb.EditRequest) == [pb.EditRequest(target=resolved, text=pb.Text(body="hi"))]
    assert sent_contents(service, pb.PinInChatRequest) == [pb.PinInChatRequest(target=resolved)]
    assert sent_contents(service, pb.RevokeRequest) == [pb.RevokeRequest(target=resolved)]
    assert stub.Revoke(pb.RevokeRequest(**ids, request_id="revoke")) == revoke
    assert len(sent_contents(service, pb.RevokeRequest)) == 1


def test_a_request_id_of_a_send_is_not_one_of_an_edit(stub: MessageServiceStub) -> None:
    sent = stub.Send(request())
    target = pb.MessageRef(message_id=sent.message_id, chat=sent.chat, from_me=True)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Revoke(pb.RevokeRequest(session_id="a", request_id="r", target=target))
    assert error_info(caught.value).reason == "REQUEST_ID_REUSED"


def test_a_message_that_was_not_sent_cannot_be_referred_to(service: FakeService, stub: MessageServiceStub) -> None:
    service.sessions.owner.refuses_to_send = CallFailed("no", certain=True, is_answer=True)
    stub.Send(request())
    service.sessions.owner.refuses_to_send = None
    for reference, code, reason in (
        ("r", grpc.StatusCode.FAILED_PRECONDITION, "MESSAGE_NOT_SENT"),
        ("never", grpc.StatusCode.NOT_FOUND, "MESSAGE_NOT_FOUND"),
    ):
        target = pb.MessageRef(request_id=reference)
        reply = pb.SendRequest(
            session_id="a", to="+4917612345678", request_id="reply", text=pb.Text(body="x"), reply_to=target
        )
        revoke = pb.RevokeRequest(session_id="a", request_id="revoke", target=target)
        calls: list[tuple[Any, Message]] = [(stub.Send, reply), (stub.Revoke, revoke)]
        for call, about in calls:
            with pytest.raises(grpc.RpcError) as caught:
                call(about)
            assert (caught.value.code(), error_info(caught.value).reason) == (code, reason)
    assert service.sessions.owner.sent == []


def test_messages_are_reported_as_read(service: FakeService, stub: MessageServiceStub) -> None:
    owner = service.sessions.owner
    owner.results["zap.worker.v1.MarkRead"] = payload(calls_pb2.MarkReadResult())
    read = pb.MarkReadRequest(session_id="a", chat="123456@lid", message_ids=["A", "B"])
    assert stub.MarkRead(read) == pb.MarkReadResponse()
    assert owner.calls == [payload(calls_pb2.MarkRead(chat="123456@lid", sender="123456@lid", message_ids=["A", "B"]))]
    owner.refuses_calls = CallFailed("websocket not connected", certain=True, kind="SESSION_NOT_CONNECTED")
    with pytest.raises(grpc.RpcError) as caught:
        stub.MarkRead(read)
    assert (caught.value.code(), error_info(caught.value).reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "SESSION_NOT_CONNECTED",
    )


def test_messages_are_listed_page_by_page(stub: MessageServiceStub) -> None:
    for number in range(5):
        stub.Send(request(request_id=f"r{number}"))
    asked = pb.ListMessagesRequest(session_id="a", page_size=2)
    seen = []
    while True:
        page = stub.List(asked)
        seen += [message.request_id for message in page.messages]
        if not page.next_page_token:
            break
        asked.page_token = page.next_page_token
    assert seen == ["r4", "r3", "r2", "r1", "r0"]
    for wrong in (
        pb.ListMessagesRequest(session_id="a", page_token=asked.page_token, chat="7@lid"),
        pb.ListMessagesRequest(session_id="a", page_token="AAAA"),
        pb.ListMessagesRequest(session_id="a", page_token="é"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stub.List(wrong)
        assert detail(caught.value, details.BadRequest).field_violations[0].field == "page_token"
    with pytest.raises(grpc.RpcError) as caught:
        stub.List(pb.ListMessagesRequest(session_id="a", since=Timestamp(seconds=10**18)))
    assert detail(caught.value, details.BadRequest).field_violations[0].field == "since"
    with pytest.raises(grpc.RpcError) as caught:
        stub.List(pb.ListMessagesRequest(session_id="unknown"))
    assert error_info(caught.value).reason == "SESSION_NOT_FOUND"


def test_a_message_that_waits_is_cancelled(service: FakeService, stub: MessageServiceStub) -> None:
    service.sessions.owner.holds_sends = True
    stub.Send(request(request_id="first"), timeout=0.5)
    assert stub.Send(request(request_id="second"), timeout=0.5).is_queued
    cancelled = stub.Cancel(pb.CancelRequest(session_id="a", request_id="second"))
    assert (cancelled.state, cancelled.reason.code) == (pb.Message.STATE_FAILED, "CANCELLED")
    first = stub.Cancel(pb.CancelRequest(session_id="a", request_id="first"))
    assert first.state == pb.Message.STATE_ACCEPTED
    with pytest.raises(grpc.RpcError) as caught:
        stub.Cancel(pb.CancelRequest(session_id="a", request_id="other"))
    assert error_info(caught.value).reason == "MESSAGE_NOT_FOUND"
