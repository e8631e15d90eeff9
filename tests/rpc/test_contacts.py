"""ContactService over the wire, to a session's process that a test answers for."""

from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details

from service.ports.processes import CallFailed
from service.protocol.payloads import message_of, payload_of
from tests.fakes.core import NUMBER_CHECKS_PER_HOUR
from tests.fakes.serving import FakeService
from tests.rpc.statuses import detail, error_info
from zap.v1 import address_pb2, session_pb2
from zap.v1 import contact_pb2 as pb
from zap.v1.contact_pb2_grpc import ContactServiceStub
from zap.v1.session_pb2_grpc import SessionServiceStub
from zap.worker.v1 import contacts_pb2

NUMBER, LID = "4917612345678", "222222@lid"
ADA = address_pb2.Address(jid=LID, phone=f"+{NUMBER}", lid=LID)
Result = pb.NumberCheck


@pytest.fixture
def service() -> Iterator[FakeService]:
    """Session a is connected and knows Ada; session b is not paired."""
    with FakeService() as service, service.channel() as channel:
        sessions = SessionServiceStub(channel)
        for session_id in ("a", "b"):
            sessions.Create(session_pb2.CreateRequest(session_id=session_id))
        service.do(service.sessions.pair, "a")
        service.contacts.numbers["222222"] = NUMBER
        service.contacts.rows["a", LID] = {"push_name": "Ada"}
        yield service


@pytest.fixture
def stub(service: FakeService) -> Iterator[ContactServiceStub]:
    with service.channel() as channel:
        yield ContactServiceStub(channel)


def answer(service: FakeService, request: type[Message], result: Message) -> None:
    """What the session's process answers to a request."""
    service.sessions.owner.results[request.DESCRIPTOR.full_name] = payload_of(result)


def asked(service: FakeService, kind: type[Message]) -> list[Message]:
    """What the session's process was asked."""
    name = kind.DESCRIPTOR.full_name
    return [message_of(call, kind) for call in service.sessions.owner.calls if call.kind == name]


def checked(*numbers: contacts_pb2.CheckedNumber) -> contacts_pb2.CheckedNumbers:
    return contacts_pb2.CheckedNumbers(numbers=numbers)


def of(number: str, check: pb.NumberCheck) -> pb.NumberCheck:
    """The same result for another number."""
    other = pb.NumberCheck()
    other.CopyFrom(check)
    other.number = number
    return other


def test_each_number_has_its_own_result(service: FakeService, stub: ContactServiceStub) -> None:
    on_whatsapp = contacts_pb2.CheckedNumber(number=NUMBER, is_on_whatsapp=True, jid=LID, business_name="Ada Ltd")
    result = checked(on_whatsapp, contacts_pb2.CheckedNumber(number="4917600000000"))
    answer(service, contacts_pb2.CheckNumbers, result)
    numbers = [f"+{NUMBER}", "0176 12345678", "+49 176/000-00-000", "abc", "4917611111111", NUMBER]
    found = stub.CheckNumbers(pb.CheckNumbersRequest(session_id="a", numbers=numbers))
    ada = Result(result=Result.RESULT_ON_WHATSAPP, address=ADA, business_name="Ada Ltd")
    assert list(found.checks) == [
        of(f"+{NUMBER}", ada),
        Result(number="0176 12345678", result=Result.RESULT_INVALID),
        Result(number="+49 176/000-00-000", result=Result.RESULT_NOT_ON_WHATSAPP),
        Result(number="abc", result=Result.RESULT_INVALID),
        Result(number="4917611111111", result=Result.RESULT_NO_ANSWER),
        of(NUMBER, ada),
    ]
    assert asked(service, contacts_pb2.CheckNumbers) == [
        contacts_pb2.CheckNumbers(numbers=[NUMBER, "4917600000000", "4917611111111"])
    ]


def test_the_account_of_a_number_may_have_another_number(service: FakeService, stub: ContactServiceStub) -> None:
    service.contacts.numbers["333333"] = "551191234567"
    result = contacts_pb2.CheckedNumber(number="5511991234567", is_on_whatsapp=True, jid="333333@lid")
    answer(service, contacts_pb2.CheckNumbers, checked(result))
    (found,) = stub.CheckNumbers(pb.CheckNumbersRequest(session_id="a", numbers=["+5511991234567"])).checks
    assert (found.number, found.address.phone) == ("+5511991234567", "+551191234567")


def test_numbers_that_are_all_invalid_are_not_asked_for(service: FakeService, stub: ContactServiceStub) -> None:
    (found,) = stub.CheckNumbers(pb.CheckNumbersRequest(session_id="a", numbers=["abc"])).checks
    assert found.result == Result.RESULT_INVALID
    assert service.sessions.owner.calls == []


def test_the_answer_is_kept_while_the_session_is_connected(service: FakeService, stub: ContactServiceStub) -> None:
    answer(service, contacts_pb2.CheckNumbers, checked(contacts_pb2.CheckedNumber(number=NUMBER)))
    request = pb.CheckNumbersRequest(session_id="a", numbers=[NUMBER])
    assert stub.CheckNumbers(request) == stub.CheckNumbers(request)
    assert len(service.sessions.owner.calls) == 1
    with service.channel() as channel:
        SessionServiceStub(channel).Deactivate(session_pb2.DeactivateRequest(session_id="a"))
    with pytest.raises(grpc.RpcError) as error:
        stub.CheckNumbers(request)
    assert error_info(error.value).reason == "SESSION_NOT_ACTIVE"


def test_a_session_that_checks_too_many_numbers_learns_when_it_may_again(
    service: FakeService, stub: ContactServiceStub
) -> None:
    answer(service, contacts_pb2.CheckNumbers, checked())
    numbers = [str(4917600000000 + n) for n in range(NUMBER_CHECKS_PER_HOUR)]
    stub.CheckNumbers(pb.CheckNumbersRequest(session_id="a", numbers=numbers))
    with pytest.raises(grpc.RpcError) as error:
        stub.CheckNumbers(pb.CheckNumbersRequest(session_id="a", numbers=[NUMBER]))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    info = error_info(error.value)
    assert (info.reason, info.metadata["per_hour"]) == ("NUMBER_CHECKS_EXHAUSTED", str(NUMBER_CHECKS_PER_HOUR))
    assert detail(error.value, details.RetryInfo).retry_delay.seconds > 0
    assert len(service.sessions.owner.calls) == 1


@pytest.mark.parametrize("person", [NUMBER, f"+{NUMBER}", f"{NUMBER}@s.whatsapp.net", LID])
def test_a_contact_is_found_by_either_address(stub: ContactServiceStub, person: str) -> None:
    found = stub.Get(pb.GetContactRequest(session_id="a", person=person))
    assert found == pb.Contact(address=ADA, push_name="Ada")


def test_an_unknown_contact_is_not_found(stub: ContactServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as error:
        stub.Get(pb.GetContactRequest(session_id="b", person=NUMBER))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert error_info(error.value).reason == "CONTACT_NOT_FOUND"


def test_contacts_are_listed_page_by_page(service: FakeService, stub: ContactServiceStub) -> None:
    names = {"full_name": "Bea Full", "first_name": "Bea", "push_name": "bea", "business_name": "Bea Ltd"}
    service.contacts.rows["a", "333333@lid"] = names
    page = stub.List(pb.ListContactsRequest(session_id="a", page_size=1))
    assert [contact.push_name for contact in page.contacts] == ["Ada"]
    last = stub.List(pb.ListContactsRequest(session_id="a", page_size=1, page_token=page.next_page_token))
    bea = address_pb2.Address(jid="333333@lid", lid="333333@lid")
    assert (list(last.contacts), last.next_page_token) == ([pb.Contact(address=bea, **names)], "")
    everything = stub.List(pb.ListContactsRequest(session_id="a"))
    assert list(everything.contacts) == [*page.contacts, *last.contacts]
    saved = stub.List(pb.ListContactsRequest(session_id="a", is_saved=True))
    assert list(saved.contacts) == list(last.contacts)
    assert not stub.List(pb.ListContactsRequest(session_id="b")).contacts


def test_a_page_token_is_good_for_its_filters_only(service: FakeService, stub: ContactServiceStub) -> None:
    service.contacts.rows["a", "333333@lid"] = {"push_name": "Ada B"}
    token = stub.List(pb.ListContactsRequest(session_id="a", page_size=1, search="ada")).next_page_token
    assert stub.List(pb.ListContactsRequest(session_id="a", search="ada", page_token=token)).contacts
    for request in (
        pb.ListContactsRequest(session_id="a", page_token=token),
        pb.ListContactsRequest(session_id="a", search="ada", is_saved=True, page_token=token),
    ):
        with pytest.raises(grpc.RpcError) as error:
            stub.List(request)
        assert [each.field for each in detail(error.value, details.BadRequest).field_violations] == ["page_token"]


def test_lids_and_numbers_are_resolved_in_the_order_of_the_request(stub: ContactServiceStub) -> None:
    people = [LID, NUMBER, "999999@lid", "+4917600000000"]
    found = stub.ResolveLid(pb.ResolveLidRequest(session_id="b", people=people))
    assert list(found.addresses) == [
        ADA,
        ADA,
        address_pb2.Address(jid="999999@lid", lid="999999@lid"),
        address_pb2.Address(jid="4917600000000@s.whatsapp.net", phone="+4917600000000"),
    ]


def test_about_has_the_person_s_addresses(service: FakeService, stub: ContactServiceStub) -> None:
    info = contacts_pb2.UserInfo(about="Busy", picture_id="17")
    answer(service, contacts_pb2.GetUserInfo, info)
    found = stub.GetAbout(pb.GetAboutRequest(session_id="a", person=NUMBER))
    assert found == pb.About(address=ADA, text="Busy", picture_id="17")
    assert asked(service, contacts_pb2.GetUserInfo) == [contacts_pb2.GetUserInfo(jid=f"{NUMBER}@s.whatsapp.net")]


def test_a_picture_has_an_address_to_download(service: FakeService, stub: ContactServiceStub) -> None:
    found = contacts_pb2.FoundPicture(picture_id="17", url="https://pps.whatsapp.net/x")
    answer(service, contacts_pb2.GetPicture, found)
    picture = stub.GetPicture(pb.GetPictureRequest(session_id="a", whose="12036-1@g.us", is_preview=True))
    group = address_pb2.Address(jid="12036-1@g.us")
    assert picture == pb.Picture(address=group, picture_id="17", url="https://pps.whatsapp.net/x")
    assert asked(service, contacts_pb2.GetPicture) == [contacts_pb2.GetPicture(jid="12036-1@g.us", is_preview=True)]


def test_a_known_picture_is_unchanged(service: FakeService, stub: ContactServiceStub) -> None:
    answer(service, contacts_pb2.GetPicture, contacts_pb2.FoundPicture())
    picture = stub.GetPicture(pb.GetPictureRequest(session_id="a", whose=LID, known_picture_id="17"))
    assert picture == pb.Picture(address=ADA, picture_id="17", is_unchanged=True)
    assert asked(service, contacts_pb2.GetPicture) == [contacts_pb2.GetPicture(jid=LID, known_picture_id="17")]


def test_blocked_people_are_listed_in_order(service: FakeService, stub: ContactServiceStub) -> None:
    answer(service, contacts_pb2.GetBlockList, contacts_pb2.BlockList(jids=["999999@lid", LID]))
    found = stub.ListBlocked(pb.ListBlockedRequest(session_id="a"))
    assert list(found.addresses) == [ADA, address_pb2.Address(jid="999999@lid", lid="999999@lid")]


def test_a_person_is_blocked_and_unblocked(service: FakeService, stub: ContactServiceStub) -> None:
    answer(service, contacts_pb2.SetBlocked, Empty())
    assert stub.Block(pb.BlockRequest(session_id="a", person=NUMBER)) == pb.BlockResponse(address=ADA)
    assert stub.Unblock(pb.UnblockRequest(session_id="a", person=LID)) == pb.UnblockResponse(address=ADA)
    assert asked(service, contacts_pb2.SetBlocked) == [
        contacts_pb2.SetBlocked(jid=f"{NUMBER}@s.whatsapp.net", is_blocked=True),
        contacts_pb2.SetBlocked(jid=LID),
    ]


Call = Callable[[ContactServiceStub, str], Message]
CALLS: dict[str, Call] = {
    "CheckNumbers": lambda stub, session: stub.CheckNumbers(
        pb.CheckNumbersRequest(session_id=session, numbers=[NUMBER])
    ),
    "GetAbout": lambda stub, session: stub.GetAbout(pb.GetAboutRequest(session_id=session, person=LID)),
    "GetPicture": lambda stub, session: stub.GetPicture(pb.GetPictureRequest(session_id=session, whose=LID)),
    "ListBlocked": lambda stub, session: stub.ListBlocked(pb.ListBlockedRequest(session_id=session)),
    "Block": lambda stub, session: stub.Block(pb.BlockRequest(session_id=session, person=LID)),
    "Unblock": lambda stub, session: stub.Unblock(pb.UnblockRequest(session_id=session, person=LID)),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_call
@pytest.mark.parametrize(
    ("failed", "code", "reason"),
    [
        (
            CallFailed("no LID found", certain=True, kind="RECIPIENT_NOT_ON_WHATSAPP"),
            grpc.StatusCode.NOT_FOUND,
            "RECIPIENT_NOT_ON_WHATSAPP",
        ),
        (CallFailed("", certain=True, kind="PICTURE_HIDDEN"), grpc.StatusCode.PERMISSION_DENIED, "PICTURE_HIDDEN"),
        (CallFailed("429", certain=True, kind="RATE_LIMITED"), grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
        (CallFailed("timed out", certain=False), grpc.StatusCode.DEADLINE_EXCEEDED, "WHATSAPP_SILENT"),
    ],
)
def test_a_failure_of_whatsapp_has_a_code_and_a_reason(
    service: FakeService, stub: ContactServiceStub, call: Call, failed: CallFailed, code: grpc.StatusCode, reason: str
) -> None:
    service.sessions.owner.refuses_calls = failed
    with pytest.raises(grpc.RpcError) as error:
        call(stub, "a")
    assert (error.value.code(), error_info(error.value).reason) == (code, reason)


@each_call
def test_a_session_that_is_not_paired_asks_nothing(service: FakeService, stub: ContactServiceStub, call: Call) -> None:
    with pytest.raises(grpc.RpcError) as error:
        call(stub, "b")
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error_info(error.value).reason == "SESSION_NOT_PAIRED"
    assert service.sessions.owner.calls == []
