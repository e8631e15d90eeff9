"""Resolves WhatsApp's message keys, which are written from the sender's point of view, to the account's."""

from dataclasses import dataclass
from typing import Any

from service.worker.inbound.content.limits import Bounds, readable
from zap.v1 import content_pb2 as pb

_PERSON_SERVERS = ("@s.whatsapp.net", "@lid", "@c.us", "@hosted", "@hosted.lid")


@dataclass(frozen=True)
class Source:
    """Where a message came from, from the account's point of view."""

    chat: str
    sender: str
    from_me: bool
    is_group: bool
    """Whether more than two people are in the chat. Only then does a key name the author."""
    edit_attribute: str = ""
    """WhatsApp's mark of edits and deletions."""


def target(key: Any, source: Source, bounds: Bounds) -> pb.MessageTarget:
    """Return the message that a key names.

    "From me" in a key means its sender. In a chat of two people the key names the chat after the sender's counterpart:
    in a key from the other person that is the account.
    """
    is_own = not key.fromMe and not source.is_group and not source.from_me
    return pb.MessageTarget(
        message_id=bounds.text(key.ID),
        author=bounds.text(_author(key, source)),
        from_me=is_own or (key.fromMe and source.from_me),
        chat=bounds.text(other_chat(readable(key.remoteJID), source)),
    )


def other_chat(chat: str, source: Source) -> str:
    """Return the chat that a key names; empty for this chat, and for one of two people, which both name differently."""
    return "" if chat == source.chat or chat.endswith(_PERSON_SERVERS) else chat


def _author(key: Any, source: Source) -> str:
    if key.fromMe:
        # Ignore an author that the key names: a sender can only claim its own messages.
        return source.sender
    if source.is_group or other_chat(readable(key.remoteJID), source):
        return readable(key.participant)
    return source.chat if source.from_me else ""
