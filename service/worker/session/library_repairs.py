"""Calls of neonize that report something else than what happened, repaired. docs/neonize.md lists what was seen.

Each takes neonize's client. A repair can go when a new wheel makes its test in tests/e2e/test_contacts.py pass without.
"""

from collections.abc import Sequence
from typing import Any

from neonize.exc import GetProfilePictureError, IsOnWhatsAppError, SendPresenceError
from neonize.proto.Neonize_pb2 import (
    GetProfilePictureParams,
    PrivacySettings,
    SetPrivacySettingReturnFunction,
)
from neonize.utils.enum import Presence

from service.worker.session.dispatch import DefinitelyNotDone


class LibraryError(Exception):
    """The library's error, as a text."""


def is_on_whatsapp(library: Any, numbers: Sequence[str]) -> Sequence[Any]:
    """Return WhatsApp's answers about numbers (digits only), which may lack some."""
    try:
        # WhatsApp takes a number without + for a local one.
        found: Sequence[Any] = library.is_on_whatsapp(*(f"+{number}" for number in numbers))
    except IsOnWhatsAppError as error:
        # The library takes an answer without users for a failure.
        if "Function returned nothing" in str(error):
            return []
        raise
    return found


def profile_picture(library: Any, jid: Any, *, is_preview: bool, known_id: str) -> Any:
    """Return the ProfilePictureInfo, an empty one if the picture is the known one."""
    # The library ignores all parameters unless every one of them is set.
    parameters = GetProfilePictureParams(Preview=is_preview, ExistingID=known_id, IsCommunity=False)
    try:
        return library.get_profile_picture(jid, parameters)
    except GetProfilePictureError as error:
        # The error holds the library's whole answer instead of its text.
        raise LibraryError(error.args[0].Error) from error


def privacy_settings(library: Any) -> PrivacySettings:
    """Return the privacy settings. Raise LibraryError or DefinitelyNotDone if they could not be read."""
    settings: PrivacySettings = library.get_privacy_settings()
    # The library logs errors, and returns settings that are all undefined.
    if any(value != PrivacySettings.UNDEFINED for _, value in settings.ListFields()):
        return settings
    if not library.is_connected:
        raise LibraryError("websocket not connected")
    raise DefinitelyNotDone("the library could not read the privacy settings; its log says why")


def set_privacy_setting(library: Any, name: str, value: str) -> PrivacySettings:
    """Set a privacy setting by WhatsApp's words, and return all settings."""
    # neonize's method takes the answer, which is a message, for the text of an error: it raises after every call,
    # although the change was made. So the Go function is called directly. neonize's enum of values also misspells one.
    binary = library._NewClient__client.SetPrivacySetting(library.uuid, name.encode(), value.encode())
    answer = SetPrivacySettingReturnFunction.FromString(binary)
    if answer.Error:
        raise LibraryError(answer.Error)
    return answer.settings


def send_presence(library: Any, *, is_online: bool) -> None:
    """Show the account as online or offline."""
    try:
        library.send_presence(Presence.AVAILABLE if is_online else Presence.UNAVAILABLE)
    except SendPresenceError as error:
        # The error holds bytes instead of a text.
        words = error.args[0]
        raise LibraryError(words.decode(errors="replace") if isinstance(words, bytes) else str(words)) from error
