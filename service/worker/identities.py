"""Chooses the canonical address of a person: the LID where it is known, else the number.

WhatsApp can send the same message by LID and by number, with or without the other address. The LID is known more often,
because chats have moved to it and the library maps numbers to LIDs. So an address that is a LID needs no look-up.
"""

from collections.abc import Callable
from typing import Any

from neonize.proto.Neonize_pb2 import JID

from service.worker.inbound.message_source import chat_alternative

LidOf = Callable[[Any], Any]
"""Return the LID of a number; a JID without a user if it is not known."""

_NUMBER, _LID = "s.whatsapp.net", "lid"


def unknown(_number: Any) -> Any:
    """Return no LID, so that only those in the stanza count."""
    return JID()


def complete(source: Any, lid_of: LidOf) -> None:
    """Set the LIDs that the stanza lacks: the sender's, and the recipient's if the account's owner wrote."""
    _complete(source.Sender, source.SenderAlt, lid_of)
    if source.IsFromMe:
        _complete(source.Chat, source.RecipientAlt, lid_of)


def sender(source: Any) -> Any:
    """Return the canonical address of the sender."""
    return _canonical(source.Sender, source.SenderAlt)


def chat(source: Any) -> Any:
    """Return the canonical address of the chat."""
    return _canonical(source.Chat, chat_alternative(source))


def _complete(address: Any, alternative: Any, lid_of: LidOf) -> None:
    if address.Server == _NUMBER and not alternative.User and (lid := lid_of(address)).User:
        alternative.CopyFrom(lid)


def _canonical(address: Any, alternative: Any) -> Any:
    is_alternative = address.Server == _NUMBER and alternative.Server == _LID and alternative.User
    return alternative if is_alternative else address
