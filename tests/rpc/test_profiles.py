"""ProfileService, PresenceService and CallService over the wire, to a session's process that a test answers for."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details

from service.ports.processes import CallFailed
from service.protocol.payloads import payload_of
from tests.fakes.serving import FakeService
from tests.pictures import jpeg
from tests.rpc.statuses import detail, error_info
from zap.v1 import address_pb2, call_service_pb2, presence_service_pb2, session_pb2
from zap.v1 import profile_pb2 as pb
from zap.v1.call_service_pb2_grpc import CallServiceStub
from zap.v1.presence_service_pb2_grpc import PresenceServiceStub
from zap.v1.profile_pb2_grpc import ProfileServiceStub
from zap.v1.session_pb2_grpc import SessionServiceStub
from zap.worker.v1 import contacts_pb2

Setting = pb.SetPrivacyRequest
SETTINGS = pb.PrivacySettings(calls=pb.PRIVACY_AUDIENCE_KNOWN, group_add=pb.PRIVACY_AUDIENCE_ALL)


class Wire:
    """A connected session, and stubs of the services."""

    def __init__(self, service: FakeService, channel: grpc.Channel) -> None:
        self.owner = service.sessions.owner
        self.profiles = ProfileServiceStub(channel)
        self.presences = PresenceServiceStub(channel)
        self.calls = CallServiceStub(channel)

    def answer(self, request: type[Message], result: Message) -> None:
        """What the session's process answers to a request."""
        self.owner.results[request.DESCRIPTOR.full_name] = payload_of(result)

    def was_asked(self, *requests: Message) -> bool:
        """Whether the session's process was asked this and nothing else."""
        return self.owner.calls == [payload_of(request) for request in requests]


@pytest.fixture
def wire() -> Iterator[Wire]:
    with FakeService() as service, service.channel() as channel:
        sessions = SessionServiceStub(channel)
        for session_id in ("a", "b"):
            sessions.Create(session_pb2.CreateRequest(session_id=session_id))
        service.do(service.sessions.pair, "a")
        yield Wire(service, channel)


def test_the_profile_is_the_account_s(wire: Wire) -> None:
    own = contacts_pb2.OwnProfile(
        jid="4917612345678@s.whatsapp.net",
        lid="123@lid",
        push_name="Ada",
        info=contacts_pb2.UserInfo(about="Busy", picture_id="17"),
    )
    wire.answer(contacts_pb2.GetOwnProfile, own)
    address = address_pb2.Address(jid="123@lid", phone="+4917612345678", lid="123@lid")
    profile = pb.Profile(address=address, push_name="Ada", about="Busy", picture_id="17")
    assert wire.profiles.Get(pb.GetProfileRequest(session_id="a")) == profile
    wire.answer(contacts_pb2.GetOwnProfile, contacts_pb2.OwnProfile(jid="4917612345678@s.whatsapp.net"))
    found = wire.profiles.Get(pb.GetProfileRequest(session_id="a")).address
    assert found == address_pb2.Address(jid="4917612345678@s.whatsapp.net", phone="+4917612345678")


def test_name_and_about_are_set(wire: Wire) -> None:
    wire.answer(contacts_pb2.SetProfileName, Empty())
    wire.answer(contacts_pb2.SetProfileAbout, Empty())
    # Characters count, not bytes.
    name, about = "ä" * 25, "ü\n" + "x" * 137
    wire.profiles.SetName(pb.SetNameRequest(session_id="a", name=name))
    wire.profiles.SetAbout(pb.SetAboutRequest(session_id="a", about=about))
    assert wire.was_asked(contacts_pb2.SetProfileName(name=name), contacts_pb2.SetProfileAbout(about=about))


def test_a_square_jpeg_becomes_the_picture(wire: Wire) -> None:
    wire.answer(contacts_pb2.SetProfilePicture, contacts_pb2.FoundPicture(picture_id="18"))
    picture = jpeg(640, 640)
    set_picture = wire.profiles.SetPicture(pb.SetPictureRequest(session_id="a", jpeg=picture))
    assert set_picture == pb.SetPictureResponse(picture_id="18")
    assert wire.was_asked(contacts_pb2.SetProfilePicture(jpeg=picture))


@pytest.mark.parametrize(
    ("picture", "problem"),
    [
        (b"\x89PNG\r\n\x1a\n", "must be a JPEG"),
        (jpeg(64, 32), "it is 64 by 32"),
        (jpeg(641, 641), "at most 640 pixels; it is 641 by 641"),
    ],
)
def test_a_picture_that_whatsapp_does_not_take_is_refused(wire: Wire, picture: bytes, problem: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        wire.profiles.SetPicture(pb.SetPictureRequest(session_id="a", jpeg=picture))
    (violation,) = detail(error.value, details.BadRequest).field_violations
    assert violation.field == "jpeg"
    assert problem in violation.description
    assert wire.was_asked()


def test_privacy_settings_are_read(wire: Wire) -> None:
    wire.answer(contacts_pb2.GetPrivacy, SETTINGS)
    assert wire.profiles.GetPrivacy(pb.GetPrivacyRequest(session_id="a")) == SETTINGS


@pytest.mark.parametrize(
    ("setting", "audience"),
    [
        (Setting.SETTING_GROUP_ADD, pb.PRIVACY_AUDIENCE_CONTACTS),
        (Setting.SETTING_LAST_SEEN, pb.PRIVACY_AUDIENCE_NONE),
        (Setting.SETTING_ABOUT, pb.PRIVACY_AUDIENCE_ALL),
        (Setting.SETTING_PICTURE, pb.PRIVACY_AUDIENCE_CONTACTS),
        (Setting.SETTING_READ_RECEIPTS, pb.PRIVACY_AUDIENCE_NONE),
        (Setting.SETTING_CALLS, pb.PRIVACY_AUDIENCE_KNOWN),
        (Setting.SETTING_ONLINE, pb.PRIVACY_AUDIENCE_MATCH_LAST_SEEN),
    ],
)
def test_a_privacy_setting_is_changed(
    wire: Wire, setting: "Setting.Setting.ValueType", audience: "pb.PrivacyAudience.ValueType"
) -> None:
    wire.answer(contacts_pb2.SetPrivacy, SETTINGS)
    request = pb.SetPrivacyRequest(session_id="a", setting=setting, audience=audience)
    assert wire.profiles.SetPrivacy(request) == SETTINGS
    assert wire.was_asked(contacts_pb2.SetPrivacy(setting=setting, audience=audience))


@pytest.mark.parametrize(
    ("setting", "audience", "allowed"),
    [
        (Setting.SETTING_ABOUT, pb.PRIVACY_AUDIENCE_CONTACTS_EXCEPT, "PRIVACY_AUDIENCE_CONTACTS"),
        (Setting.SETTING_READ_RECEIPTS, pb.PRIVACY_AUDIENCE_CONTACTS, "PRIVACY_AUDIENCE_NONE"),
        (Setting.SETTING_CALLS, pb.PRIVACY_AUDIENCE_NONE, "PRIVACY_AUDIENCE_KNOWN"),
        (Setting.SETTING_ONLINE, pb.PRIVACY_AUDIENCE_NONE, "PRIVACY_AUDIENCE_MATCH_LAST_SEEN"),
    ],
)
def test_an_audience_that_a_setting_does_not_allow_is_refused(
    wire: Wire, setting: "Setting.Setting.ValueType", audience: "pb.PrivacyAudience.ValueType", allowed: str
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        wire.profiles.SetPrivacy(pb.SetPrivacyRequest(session_id="a", setting=setting, audience=audience))
    (violation,) = detail(error.value, details.BadRequest).field_violations
    assert violation.field == "audience"
    assert allowed in violation.description
    assert wire.was_asked()


def test_presence_and_typing_are_shown_and_subscribed_to(wire: Wire) -> None:
    for kind in (contacts_pb2.SetPresence, contacts_pb2.SetChatPresence, contacts_pb2.SubscribePresence):
        wire.answer(kind, Empty())
    recording = presence_service_pb2.SetChatPresenceRequest.ACTIVITY_RECORDING
    wire.presences.SetPresence(presence_service_pb2.SetPresenceRequest(session_id="a", is_online=True))
    wire.presences.SetPresence(presence_service_pb2.SetPresenceRequest(session_id="a"))
    wire.presences.SetChatPresence(
        presence_service_pb2.SetChatPresenceRequest(session_id="a", chat="12036-1@g.us", activity=recording)
    )
    wire.presences.Subscribe(presence_service_pb2.SubscribeRequest(session_id="a", person="+4917612345678"))
    assert wire.was_asked(
        contacts_pb2.SetPresence(is_online=True),
        contacts_pb2.SetPresence(),
        contacts_pb2.SetChatPresence(jid="12036-1@g.us", activity=recording),
        contacts_pb2.SubscribePresence(jid="4917612345678@s.whatsapp.net"),
    )


def test_an_account_without_a_name_cannot_show_its_presence(wire: Wire) -> None:
    wire.owner.refuses_calls = CallFailed("can't send presence", certain=True, kind="NAME_NOT_SET")
    with pytest.raises(grpc.RpcError) as error:
        wire.presences.SetPresence(presence_service_pb2.SetPresenceRequest(session_id="a", is_online=True))
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error_info(error.value).reason == "NAME_NOT_SET"


def test_a_call_is_rejected(wire: Wire) -> None:
    wire.answer(contacts_pb2.RejectCall, Empty())
    wire.calls.Reject(call_service_pb2.RejectRequest(session_id="a", call_id="C1", caller="222222@lid"))
    assert wire.was_asked(contacts_pb2.RejectCall(jid="222222@lid", call_id="C1"))


def test_a_session_that_is_not_paired_asks_nothing(wire: Wire) -> None:
    calls = (
        lambda: wire.profiles.Get(pb.GetProfileRequest(session_id="b")),
        lambda: wire.presences.SetPresence(presence_service_pb2.SetPresenceRequest(session_id="b")),
        lambda: wire.calls.Reject(call_service_pb2.RejectRequest(session_id="b", call_id="C1", caller="222222@lid")),
    )
    for call in calls:
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert error_info(error.value).reason == "SESSION_NOT_PAIRED"
    assert wire.was_asked()
