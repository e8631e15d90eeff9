"""By which address a person counts: by the LID where it is known, else by the number.

WhatsApp gives one message by LID and by number, with the other address beside it or without. The LID is known more
often: chats have moved to it, and for a number the library's map has the LID. So what comes by LID needs no look-up.
"""

from collections.abc import Callable
from typing import Any

from neonize.proto.Neonize_pb2 import JID

from service.worker.inbound.message_source import chat_alternative

LidOf = Callable[[Any], Any]
"""Returns the LID of a number; one without a user if it is not known."""

_NUMBER, _LID = "s.whatsapp.net", "lid"


def unknown(_number: Any) -> Any:
    """Know no LID besides those that a stanza gives."""
    return JID()


def complete(source: Any, lid_of: LidOf) -> None:
    """Set the LIDs that a stanza does not give: of the sender, and of whom the account's owner wrote to."""
    _complete(source.Sender, source.SenderAlt, lid_of)
    if source.IsFromMe:
        _complete(source.Chat, source.RecipientAlt, lid_of)


def sender(source: Any) -> Any:
    """Return the address by which the sender counts."""
    return _canonical(source.Sender, source.SenderAlt)


def chat(source: Any) -> Any:
    """Return the address by which the chat counts."""
    return _canonical(source.Chat, chat_alternative(source))


def _complete(address: Any, alternative: Any, lid_of: LidOf) -> None:
    if address.Server == _NUMBER and not alternative.User and (lid := lid_of(address)).User:
        alternative.CopyFrom(lid)


def _canonical(address: Any, alternative: Any) -> Any:
    is_alternative = address.Server == _NUMBER and alternative.Server == _LID and alternative.User
    return alternative if is_alternative else address
