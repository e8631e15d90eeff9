"""Carries out the calls of zap/worker/v1/contacts.proto: people, the account's profile, presence, telephone calls."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from neonize.exc import GetJIDFromStoreError
from neonize.proto import Neonize_pb2 as neonize
from neonize.utils.enum import BlocklistAction
from neonize.utils.enum import ChatPresence as LibraryActivity
from neonize.utils.enum import ChatPresenceMedia as LibraryMedia

from service.domain.call_failures import CallFailure
from service.worker.addresses import from_text, person_to_text
from service.worker.session import library_repairs
from service.worker.session.dispatch import DefinitelyNotDone
from zap.v1 import presence_service_pb2, profile_pb2
from zap.worker.v1 import contacts_pb2

if TYPE_CHECKING:
    from service.worker.session.client import Client

_SETTING = profile_pb2.SetPrivacyRequest
_ACTIVITY = presence_service_pb2.SetChatPresenceRequest
#: WhatsApp's words for the settings and for their values.
_SETTING_NAMES = {
    _SETTING.SETTING_GROUP_ADD: "groupadd",
    _SETTING.SETTING_LAST_SEEN: "last",
    _SETTING.SETTING_ABOUT: "status",
    _SETTING.SETTING_PICTURE: "profile",
    _SETTING.SETTING_READ_RECEIPTS: "readreceipts",
    _SETTING.SETTING_CALLS: "calladd",
    _SETTING.SETTING_ONLINE: "online",
}
_AUDIENCE_NAMES = {
    profile_pb2.PRIVACY_AUDIENCE_ALL: "all",
    profile_pb2.PRIVACY_AUDIENCE_CONTACTS: "contacts",
    profile_pb2.PRIVACY_AUDIENCE_NONE: "none",
    profile_pb2.PRIVACY_AUDIENCE_MATCH_LAST_SEEN: "match_last_seen",
    profile_pb2.PRIVACY_AUDIENCE_KNOWN: "known",
}
_AUDIENCES = {
    neonize.PrivacySettings.ALL: profile_pb2.PRIVACY_AUDIENCE_ALL,
    neonize.PrivacySettings.CONTACTS: profile_pb2.PRIVACY_AUDIENCE_CONTACTS,
    neonize.PrivacySettings.CONTACT_BLACKLIST: profile_pb2.PRIVACY_AUDIENCE_CONTACTS_EXCEPT,
    neonize.PrivacySettings.MATCH_LAST_SEEN: profile_pb2.PRIVACY_AUDIENCE_MATCH_LAST_SEEN,
    neonize.PrivacySettings.KNOWN: profile_pb2.PRIVACY_AUDIENCE_KNOWN,
    neonize.PrivacySettings.NONE: profile_pb2.PRIVACY_AUDIENCE_NONE,
}
_ACTIVITIES = {
    _ACTIVITY.ACTIVITY_TYPING: (LibraryActivity.CHAT_PRESENCE_COMPOSING, LibraryMedia.CHAT_PRESENCE_MEDIA_TEXT),
    _ACTIVITY.ACTIVITY_RECORDING: (LibraryActivity.CHAT_PRESENCE_COMPOSING, LibraryMedia.CHAT_PRESENCE_MEDIA_AUDIO),
    _ACTIVITY.ACTIVITY_PAUSED: (LibraryActivity.CHAT_PRESENCE_PAUSED, LibraryMedia.CHAT_PRESENCE_MEDIA_TEXT),
}


def methods(client: "Client") -> dict[type[Message], Callable[[Any], Message]]:
    """Return the methods by the type of their request."""
    calls = ContactCalls(client)
    return {
        contacts_pb2.CheckNumbers: calls.check_numbers,
        contacts_pb2.GetUserInfo: calls.get_user_info,
        contacts_pb2.GetOwnProfile: calls.get_own_profile,
        contacts_pb2.GetPicture: calls.get_picture,
        contacts_pb2.GetBlockList: calls.get_block_list,
        contacts_pb2.SetBlocked: calls.set_blocked,
        contacts_pb2.SetProfileName: calls.set_profile_name,
        contacts_pb2.SetProfileAbout: calls.set_profile_about,
        contacts_pb2.SetProfilePicture: calls.set_profile_picture,
        contacts_pb2.GetPrivacy: calls.get_privacy,
        contacts_pb2.SetPrivacy: calls.set_privacy,
        contacts_pb2.SetPresence: calls.set_presence,
        contacts_pb2.SetChatPresence: calls.set_chat_presence,
        contacts_pb2.SubscribePresence: calls.subscribe_presence,
        contacts_pb2.RejectCall: calls.reject_call,
    }


class ContactCalls:
    """Has a method for each request; each raises the library's exceptions, NoAddress or DefinitelyNotDone."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    @property
    def _library(self) -> Any:
        return self._client.library

    def check_numbers(self, request: contacts_pb2.CheckNumbers) -> contacts_pb2.CheckedNumbers:
        """Ask which numbers are on WhatsApp."""
        found = library_repairs.is_on_whatsapp(self._library, request.numbers)
        return contacts_pb2.CheckedNumbers(
            numbers=[
                contacts_pb2.CheckedNumber(
                    number=each.Query.removeprefix("+"),
                    is_on_whatsapp=each.IsIn,
                    jid=person_to_text(each.JID) if each.IsIn else "",
                    business_name=each.VerifiedName.Details.verifiedName,
                )
                for each in found
            ]
        )

    def get_user_info(self, request: contacts_pb2.GetUserInfo) -> contacts_pb2.UserInfo:
        """Ask what a person shows."""
        info = self._user_info(from_text(request.jid))
        # WhatsApp returns an empty entry for a number without an account. An account has at least one device.
        if not (info.Devices or info.Status or info.PictureID):
            raise DefinitelyNotDone("WhatsApp returned nothing", CallFailure.RECIPIENT_NOT_ON_WHATSAPP)
        return _user_info(info)

    def get_own_profile(self, _: contacts_pb2.GetOwnProfile) -> contacts_pb2.OwnProfile:
        """Return the account's own profile."""
        device = self._client.device()
        jid = person_to_text(device.JID)
        info = _user_info(self._user_info(from_text(jid)))
        return contacts_pb2.OwnProfile(jid=jid, lid=person_to_text(device.LID), push_name=device.PushName, info=info)

    def get_picture(self, request: contacts_pb2.GetPicture) -> contacts_pb2.FoundPicture:
        """Ask where a picture is."""
        found = library_repairs.profile_picture(
            self._library,
            from_text(request.jid),
            is_preview=request.is_preview,
            known_id=request.known_picture_id,
        )
        return contacts_pb2.FoundPicture(picture_id=found.ID, url=found.URL)

    def get_block_list(self, _: contacts_pb2.GetBlockList) -> contacts_pb2.BlockList:
        """Return the block list."""
        return contacts_pb2.BlockList(jids=[person_to_text(jid) for jid in self._library.get_blocklist().JIDs])

    def set_blocked(self, request: contacts_pb2.SetBlocked) -> Empty:
        """Block or unblock a person, unless that is so already: WhatsApp refuses to unblock a person twice (400)."""
        person = from_text(request.jid)
        blocked = {person_to_text(jid) for jid in self._library.get_blocklist().JIDs}
        is_blocked = not blocked.isdisjoint({person_to_text(person), *self._lid_of(person)})
        if is_blocked != request.is_blocked:
            action = BlocklistAction.BLOCK if request.is_blocked else BlocklistAction.UNBLOCK
            self._library.update_blocklist(person, action)
        return Empty()

    def set_profile_name(self, request: contacts_pb2.SetProfileName) -> Empty:
        """Set the account's name."""
        self._library.set_profile_name(request.name)
        return Empty()

    def set_profile_about(self, request: contacts_pb2.SetProfileAbout) -> Empty:
        """Set the text in "about"."""
        self._library.set_status_message(request.about)
        return Empty()

    def set_profile_picture(self, request: contacts_pb2.SetProfilePicture) -> contacts_pb2.FoundPicture:
        """Set the account's picture."""
        # Bytes only: neonize takes a text for a path or an address, and reads it.
        return contacts_pb2.FoundPicture(picture_id=self._library.set_profile_photo(bytes(request.jpeg)))

    def get_privacy(self, _: contacts_pb2.GetPrivacy) -> profile_pb2.PrivacySettings:
        """Return the privacy settings."""
        return _privacy_settings(library_repairs.privacy_settings(self._library))

    def set_privacy(self, request: contacts_pb2.SetPrivacy) -> profile_pb2.PrivacySettings:
        """Change a privacy setting."""
        name, value = _SETTING_NAMES[request.setting], _AUDIENCE_NAMES[request.audience]
        return _privacy_settings(library_repairs.set_privacy_setting(self._library, name, value))

    def set_presence(self, request: contacts_pb2.SetPresence) -> Empty:
        """Show the account as online or offline."""
        library_repairs.send_presence(self._library, is_online=request.is_online)
        return Empty()

    def set_chat_presence(self, request: contacts_pb2.SetChatPresence) -> Empty:
        """Show an activity in a chat."""
        # By the table alone: a number that the library does not know ends the process.
        activity, medium = _ACTIVITIES[request.activity]
        self._library.send_chat_presence(from_text(request.jid), activity, medium)
        return Empty()

    def subscribe_presence(self, request: contacts_pb2.SubscribePresence) -> Empty:
        """Subscribe to a person's presence."""
        self._library.subscribe_presence(from_text(request.jid))
        return Empty()

    def reject_call(self, request: contacts_pb2.RejectCall) -> Empty:
        """Reject a telephone call."""
        self._library.reject_call(from_text(request.jid), request.call_id)
        return Empty()

    def _user_info(self, jid: Any) -> Any:
        found = [each.UserInfo for each in self._library.get_user_info(jid)]
        if not found:
            raise DefinitelyNotDone("WhatsApp returned nothing", CallFailure.RECIPIENT_NOT_ON_WHATSAPP)
        return found[0]

    def _lid_of(self, person: Any) -> Iterable[str]:
        """Return the LID of a number, if the library knows it."""
        if person.Server != "s.whatsapp.net":
            return ()
        try:
            lid = self._library.get_lid_from_pn(person)
        except GetJIDFromStoreError:
            return ()
        return (person_to_text(lid),) if lid.User else ()


def _user_info(info: Any) -> contacts_pb2.UserInfo:
    # Of a business, the library leaves the verified name out here.
    return contacts_pb2.UserInfo(about=info.Status, picture_id=info.PictureID)


def _privacy_settings(settings: neonize.PrivacySettings) -> profile_pb2.PrivacySettings:
    unknown = profile_pb2.PRIVACY_AUDIENCE_UNSPECIFIED
    return profile_pb2.PrivacySettings(
        group_add=_AUDIENCES.get(settings.GroupAdd, unknown),
        last_seen=_AUDIENCES.get(settings.LastSeen, unknown),
        about=_AUDIENCES.get(settings.Status, unknown),
        picture=_AUDIENCES.get(settings.Profile, unknown),
        read_receipts=_AUDIENCES.get(settings.ReadReceipts, unknown),
        calls=_AUDIENCES.get(settings.CallAdd, unknown),
        online=_AUDIENCES.get(settings.Online, unknown),
    )
