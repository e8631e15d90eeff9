"""Which message another one is about: WhatsApp's keys, which are written from the sender's point of view."""

from dataclasses import dataclass
from typing import Any

from service.worker.inbound.content.limits import Bounds, readable
from zap.v1 import content_pb2 as pb

_OF_PEOPLE = ("@s.whatsapp.net", "@lid", "@c.us", "@hosted", "@hosted.lid")


@dataclass(frozen=True)
class Source:
    """Where a message came from, from the account's point of view."""

    chat: str
    sender: str
    from_me: bool
    is_group: bool
    """More than two people are in the chat: only then does a key name the author."""
    edit_attribute: str = ""
    """WhatsApp's own mark of edits and deletions."""


def target(key: Any, source: Source, bounds: Bounds) -> pb.MessageTarget:
    """The message that a key names.

    "From me" in a key is said by its sender: of a friend's it means the friend. And the chat in it is, between two
    people, named after the other one, which is the account.
    """
    is_accounts = not key.fromMe and not source.is_group and not source.from_me
    return pb.MessageTarget(
        message_id=bounds.text(key.ID),
        author=bounds.text(_author(key, source)),
        from_me=is_accounts or (key.fromMe and source.from_me),
        chat=bounds.text(other_chat(readable(key.remoteJID), source)),
    )


def other_chat(chat: str, source: Source) -> str:
    """The chat that a sender names, if it is not this one: between two people that is named after either of them."""
    return "" if chat == source.chat or chat.endswith(_OF_PEOPLE) else chat


def _author(key: Any, source: Source) -> str:
    if key.fromMe:
        # Whoever is named beside it: nobody speaks for another.
        return source.sender
    if source.is_group or other_chat(readable(key.remoteJID), source):
        return readable(key.participant)
    return source.chat if source.from_me else ""
