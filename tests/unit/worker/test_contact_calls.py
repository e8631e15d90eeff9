"""Calls about people, as the session's process makes them to the library. The real library is in tests/e2e."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from neonize.exc import GetJIDFromStoreError, GetProfilePictureError, IsOnWhatsAppError, SendPresenceError
from neonize.proto import Neonize_pb2 as neonize
from neonize.utils.enum import BlocklistAction, ChatPresence, ChatPresenceMedia, Presence

from service.domain.call_failures import CallFailure
from service.worker import errors
from service.worker.addresses import from_text
from service.worker.session import contact_calls
from service.worker.session.client import Client
from service.worker.session.dispatch import DefinitelyNotDone
from service.worker.session.library_repairs import LibraryError
from zap.v1 import presence_service_pb2, profile_pb2
from zap.worker.v1 import contacts_pb2 as pb

NUMBER, LID = "4915100000002@s.whatsapp.net", "222@lid"
SETTINGS = ("GroupAdd", "LastSeen", "Status", "Profile", "ReadReceipts", "CallAdd", "Online")
Activity = presence_service_pb2.SetChatPresenceRequest


class Library:
    """Stands in for neonize's client: answers with what a test sets, and remembers the calls."""

    uuid = b"a"
    is_connected = True

    def __init__(self) -> None:
        self.called: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {}
        self._NewClient__client = SimpleNamespace(SetPrivacySetting=self._answer("SetPrivacySetting"))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return self._answer(name)

    def _answer(self, name: str) -> Callable[..., Any]:
        def answer(*arguments: Any) -> Any:
            self.called.append((name, *arguments))
            found = self.answers.get(name)
            if isinstance(found, Exception):
                raise found
            return found

        return answer


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
def call(library: Library) -> Callable[[Message], Any]:
    device = neonize.Device(
        JID=from_text("4915100000001:3@s.whatsapp.net"),
        LID=from_text("111:3@lid"),
        Platform="",
        BussinessName="",
        PushName="Anna",
        Initialized=True,
    )
    client = SimpleNamespace(library=library, device=lambda: device)
    methods = contact_calls.methods(cast("Client", client))
    return lambda request: methods[type(request)](request)


Call = Callable[[Message], Any]


def answered(number: str, jid: str, *, is_in: bool = True, name: str = "") -> neonize.IsOnWhatsAppResponse:
    found = neonize.IsOnWhatsAppResponse(Query=number, JID=from_text(jid), IsIn=is_in)
    if name:
        found.VerifiedName.Details.verifiedName = name
    return found


def test_numbers_are_checked_with_a_plus(library: Library, call: Call) -> None:
    library.answers["is_on_whatsapp"] = [
        answered("+49151", LID, name="Doe Ltd"),
        answered("49152", "49152@s.whatsapp.net", is_in=False),
    ]
    found = call(pb.CheckNumbers(numbers=["49151", "49152"]))
    assert library.called == [("is_on_whatsapp", "+49151", "+49152")]
    assert list(found.numbers) == [
        pb.CheckedNumber(number="49151", is_on_whatsapp=True, jid=LID, business_name="Doe Ltd"),
        pb.CheckedNumber(number="49152"),
    ]


def test_an_answer_without_users_is_no_failure(library: Library, call: Call) -> None:
    library.answers["is_on_whatsapp"] = IsOnWhatsAppError("Function returned nothing.")
    assert call(pb.CheckNumbers(numbers=["49151"])) == pb.CheckedNumbers()
    library.answers["is_on_whatsapp"] = IsOnWhatsAppError("websocket not connected")
    with pytest.raises(IsOnWhatsAppError):
        call(pb.CheckNumbers(numbers=["49151"]))


def user_info(about: str = "", picture_id: str = "", devices: int = 1) -> list[Any]:
    info = neonize.UserInfo(Status=about, PictureID=picture_id, Devices=[from_text(NUMBER)] * devices)
    return [neonize.GetUserInfoSingleReturnFunction(JID=from_text(NUMBER), UserInfo=info)]


def test_what_a_person_shows(library: Library, call: Call) -> None:
    library.answers["get_user_info"] = user_info("Busy", "17")
    assert call(pb.GetUserInfo(jid=NUMBER)) == pb.UserInfo(about="Busy", picture_id="17")
    assert library.called == [("get_user_info", from_text(NUMBER))]


@pytest.mark.parametrize("answer", [[], user_info(devices=0)])
def test_a_number_without_an_account_shows_nothing(library: Library, call: Call, answer: list[Any]) -> None:
    library.answers["get_user_info"] = answer
    with pytest.raises(DefinitelyNotDone) as error:
        call(pb.GetUserInfo(jid=NUMBER))
    assert error.value.kind == "RECIPIENT_NOT_ON_WHATSAPP"


def test_the_own_profile_names_no_device(library: Library, call: Call) -> None:
    library.answers["get_user_info"] = user_info("Hi", "3")
    info = pb.UserInfo(about="Hi", picture_id="3")
    own = pb.OwnProfile(jid="4915100000001@s.whatsapp.net", lid="111@lid", push_name="Anna", info=info)
    assert call(pb.GetOwnProfile()) == own
    assert library.called == [("get_user_info", from_text("4915100000001@s.whatsapp.net"))]


def test_all_parameters_of_a_picture_are_set(library: Library, call: Call) -> None:
    library.answers["get_profile_picture"] = neonize.ProfilePictureInfo(URL="https://pps.whatsapp.net/x", ID="17")
    found = call(pb.GetPicture(jid=LID))
    assert found == pb.FoundPicture(picture_id="17", url="https://pps.whatsapp.net/x")
    ((_, jid, parameters),) = library.called
    assert jid == from_text(LID)
    assert all(parameters.HasField(name) for name in ("Preview", "ExistingID", "IsCommunity"))


def test_a_picture_that_is_known_has_no_address(library: Library, call: Call) -> None:
    library.answers["get_profile_picture"] = neonize.ProfilePictureInfo()
    assert call(pb.GetPicture(jid=LID, is_preview=True, known_picture_id="17")) == pb.FoundPicture()
    parameters = library.called[0][2]
    assert (parameters.Preview, parameters.ExistingID) == (True, "17")


@pytest.mark.parametrize(
    ("words", "failure"),
    [
        ("that user or group does not have a profile picture", CallFailure.PICTURE_NOT_FOUND),
        ("the user has hidden their profile picture from you", CallFailure.PICTURE_HIDDEN),
    ],
)
def test_the_error_of_a_picture_is_a_text(library: Library, call: Call, words: str, failure: CallFailure) -> None:
    library.answers["get_profile_picture"] = GetProfilePictureError(
        neonize.GetProfilePictureReturnFunction(Error=words)
    )
    with pytest.raises(LibraryError) as error:
        call(pb.GetPicture(jid=LID))
    assert str(error.value) == words
    assert errors.call_failure(words) is failure


def block_list(*jids: str) -> neonize.Blocklist:
    return neonize.Blocklist(DHash="1", JIDs=[from_text(jid) for jid in jids])


def test_the_block_list_is_of_people(library: Library, call: Call) -> None:
    library.answers["get_blocklist"] = block_list(LID, NUMBER)
    assert call(pb.GetBlockList()) == pb.BlockList(jids=[LID, NUMBER])


@pytest.mark.parametrize("jid", [NUMBER, LID])
@pytest.mark.parametrize(
    ("blocked", "wanted", "action"),
    [
        ([], True, BlocklistAction.BLOCK),
        (["333@lid"], True, BlocklistAction.BLOCK),
        ([LID], False, BlocklistAction.UNBLOCK),
        ([LID], True, None),
        ([], False, None),
    ],
)
def test_a_person_is_blocked_and_unblocked_once(
    library: Library, call: Call, jid: str, blocked: list[str], wanted: bool, action: BlocklistAction | None
) -> None:
    library.answers["get_blocklist"] = block_list(*blocked)
    library.answers["get_lid_from_pn"] = from_text(LID)
    assert call(pb.SetBlocked(jid=jid, is_blocked=wanted)) == Empty()
    changes = [each for each in library.called if each[0] == "update_blocklist"]
    assert changes == ([("update_blocklist", from_text(jid), action)] if action else [])


@pytest.mark.parametrize("answer", [neonize.JID(), GetJIDFromStoreError("no")])
def test_a_number_whose_lid_is_unknown_is_blocked(library: Library, call: Call, answer: Any) -> None:
    library.answers["get_blocklist"] = block_list(LID)
    library.answers["get_lid_from_pn"] = answer
    call(pb.SetBlocked(jid=NUMBER, is_blocked=True))
    assert library.called[-1] == ("update_blocklist", from_text(NUMBER), BlocklistAction.BLOCK)


def test_the_profile_is_set(library: Library, call: Call) -> None:
    library.answers["set_profile_photo"] = "18"
    call(pb.SetProfileName(name="Anna"))
    call(pb.SetProfileAbout(about="Busy"))
    assert call(pb.SetProfilePicture(jpeg=b"\xff\xd8")) == pb.FoundPicture(picture_id="18")
    assert library.called == [
        ("set_profile_name", "Anna"),
        ("set_status_message", "Busy"),
        ("set_profile_photo", b"\xff\xd8"),
    ]


def settings(value: "neonize.PrivacySettings.PrivacySetting.ValueType") -> neonize.PrivacySettings:
    return neonize.PrivacySettings(**dict.fromkeys(SETTINGS, value))


@pytest.mark.parametrize(
    ("value", "audience"),
    [
        (neonize.PrivacySettings.ALL, profile_pb2.PRIVACY_AUDIENCE_ALL),
        (neonize.PrivacySettings.CONTACTS, profile_pb2.PRIVACY_AUDIENCE_CONTACTS),
        (neonize.PrivacySettings.CONTACT_BLACKLIST, profile_pb2.PRIVACY_AUDIENCE_CONTACTS_EXCEPT),
        (neonize.PrivacySettings.MATCH_LAST_SEEN, profile_pb2.PRIVACY_AUDIENCE_MATCH_LAST_SEEN),
        (neonize.PrivacySettings.KNOWN, profile_pb2.PRIVACY_AUDIENCE_KNOWN),
        (neonize.PrivacySettings.NONE, profile_pb2.PRIVACY_AUDIENCE_NONE),
    ],
)
def test_privacy_settings_are_read(library: Library, call: Call, value: Any, audience: Any) -> None:
    library.answers["get_privacy_settings"] = settings(value)
    found = call(pb.GetPrivacy())
    assert {each for _, each in found.ListFields()} == {audience}
    assert len(found.ListFields()) == len(SETTINGS)


def test_each_privacy_setting_has_its_place(library: Library, call: Call) -> None:
    answer = settings(neonize.PrivacySettings.UNDEFINED)
    answer.GroupAdd, answer.LastSeen = neonize.PrivacySettings.ALL, neonize.PrivacySettings.CONTACTS
    answer.Status, answer.Profile = neonize.PrivacySettings.CONTACT_BLACKLIST, neonize.PrivacySettings.NONE
    answer.CallAdd, answer.Online = neonize.PrivacySettings.KNOWN, neonize.PrivacySettings.MATCH_LAST_SEEN
    library.answers["get_privacy_settings"] = answer
    assert call(pb.GetPrivacy()) == profile_pb2.PrivacySettings(
        group_add=profile_pb2.PRIVACY_AUDIENCE_ALL,
        last_seen=profile_pb2.PRIVACY_AUDIENCE_CONTACTS,
        about=profile_pb2.PRIVACY_AUDIENCE_CONTACTS_EXCEPT,
        picture=profile_pb2.PRIVACY_AUDIENCE_NONE,
        calls=profile_pb2.PRIVACY_AUDIENCE_KNOWN,
        online=profile_pb2.PRIVACY_AUDIENCE_MATCH_LAST_SEEN,
    )


def test_privacy_settings_that_could_not_be_read_are_an_error(library: Library, call: Call) -> None:
    library.answers["get_privacy_settings"] = settings(neonize.PrivacySettings.UNDEFINED)
    with pytest.raises(DefinitelyNotDone):
        call(pb.GetPrivacy())
    library.is_connected = False
    with pytest.raises(LibraryError, match="websocket not connected"):
        call(pb.GetPrivacy())


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        (profile_pb2.SetPrivacyRequest.SETTING_GROUP_ADD, b"groupadd"),
        (profile_pb2.SetPrivacyRequest.SETTING_LAST_SEEN, b"last"),
        (profile_pb2.SetPrivacyRequest.SETTING_ABOUT, b"status"),
        (profile_pb2.SetPrivacyRequest.SETTING_PICTURE, b"profile"),
        (profile_pb2.SetPrivacyRequest.SETTING_READ_RECEIPTS, b"readreceipts"),
        (profile_pb2.SetPrivacyRequest.SETTING_CALLS, b"calladd"),
        (profile_pb2.SetPrivacyRequest.SETTING_ONLINE, b"online"),
    ],
)
def test_a_privacy_setting_is_set_by_whatsapp_s_words(library: Library, call: Call, setting: Any, name: bytes) -> None:
    answer = neonize.SetPrivacySettingReturnFunction(settings=settings(neonize.PrivacySettings.NONE))
    library.answers["SetPrivacySetting"] = answer.SerializeToString()
    found = call(pb.SetPrivacy(setting=setting, audience=profile_pb2.PRIVACY_AUDIENCE_NONE))
    assert library.called == [("SetPrivacySetting", b"a", name, b"none")]
    assert found.group_add == profile_pb2.PRIVACY_AUDIENCE_NONE


@pytest.mark.parametrize(
    ("audience", "value"),
    [
        (profile_pb2.PRIVACY_AUDIENCE_ALL, b"all"),
        (profile_pb2.PRIVACY_AUDIENCE_CONTACTS, b"contacts"),
        (profile_pb2.PRIVACY_AUDIENCE_MATCH_LAST_SEEN, b"match_last_seen"),
        (profile_pb2.PRIVACY_AUDIENCE_KNOWN, b"known"),
    ],
)
def test_a_refused_privacy_setting_is_an_error(library: Library, call: Call, audience: Any, value: bytes) -> None:
    answer = neonize.SetPrivacySettingReturnFunction(Error="info query returned status 400: bad-request")
    library.answers["SetPrivacySetting"] = answer.SerializeToString()
    with pytest.raises(LibraryError, match="400"):
        call(pb.SetPrivacy(setting=profile_pb2.SetPrivacyRequest.SETTING_ONLINE, audience=audience))
    assert library.called == [("SetPrivacySetting", b"a", b"online", value)]


def test_presence_is_shown(library: Library, call: Call) -> None:
    call(pb.SetPresence(is_online=True))
    call(pb.SetPresence())
    assert library.called == [("send_presence", Presence.AVAILABLE), ("send_presence", Presence.UNAVAILABLE)]


def test_the_error_of_presence_is_a_text(library: Library, call: Call) -> None:
    words = "can't send presence without PushName set"
    library.answers["send_presence"] = SendPresenceError(words.encode())
    with pytest.raises(LibraryError) as error:
        call(pb.SetPresence(is_online=True))
    assert str(error.value) == words
    assert errors.call_failure(words) is CallFailure.NAME_NOT_SET


@pytest.mark.parametrize(
    ("activity", "state", "medium"),
    [
        (Activity.ACTIVITY_TYPING, ChatPresence.CHAT_PRESENCE_COMPOSING, ChatPresenceMedia.CHAT_PRESENCE_MEDIA_TEXT),
        (
            Activity.ACTIVITY_RECORDING,
            ChatPresence.CHAT_PRESENCE_COMPOSING,
            ChatPresenceMedia.CHAT_PRESENCE_MEDIA_AUDIO,
        ),
        (Activity.ACTIVITY_PAUSED, ChatPresence.CHAT_PRESENCE_PAUSED, ChatPresenceMedia.CHAT_PRESENCE_MEDIA_TEXT),
    ],
)
def test_typing_is_shown(library: Library, call: Call, activity: Any, state: Any, medium: Any) -> None:
    call(pb.SetChatPresence(jid="12036@g.us", activity=activity))
    assert library.called == [("send_chat_presence", from_text("12036@g.us"), state, medium)]


def test_an_activity_that_the_library_does_not_know_never_reaches_it(library: Library, call: Call) -> None:
    with pytest.raises(KeyError):
        call(pb.SetChatPresence(jid=LID, activity=cast("Activity.Activity.ValueType", 9)))
    assert library.called == []


def test_presence_is_subscribed_to_and_calls_are_rejected(library: Library, call: Call) -> None:
    call(pb.SubscribePresence(jid=LID))
    call(pb.RejectCall(jid=LID, call_id="C1"))
    assert library.called == [("subscribe_presence", from_text(LID)), ("reject_call", from_text(LID), "C1")]
