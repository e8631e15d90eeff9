"""Builds WhatsApp's references to messages: keys, and the context of a reply."""

from typing import Protocol

from neonize.proto.waCommon.WACommon_pb2 import MessageKey
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import ContextInfo, Message

from zap.v1 import message_pb2 as pb


class Addresses(Protocol):
    """Knows the addresses of chats and of the account."""

    def chat_of(self, jid: str) -> str:
        """Return the JID under which WhatsApp has a chat: a person's LID, if it is known."""

    def own_address(self, chat: str) -> str:
        """Return the account's JID as others see it in a chat."""


def key_of(ref: pb.MessageRef, addresses: Addresses) -> MessageKey:
    """Return the key of a message. Only for another member's message in a group, it names the author."""
    participant = ref.sender if _is_group(ref.chat) and not ref.from_me else None
    return MessageKey(
        remoteJID=addresses.chat_of(ref.chat), fromMe=ref.from_me, ID=ref.message_id, participant=participant
    )


def context_of(request: pb.SendRequest, to: str, addresses: Addresses) -> ContextInfo | None:
    """Return what a message says of its reply and its expiration; None if neither is requested."""
    if not (request.HasField("reply_to") or request.HasField("expiration")):
        return None
    context = ContextInfo()
    if request.HasField("reply_to"):
        _quote(context, request, to, addresses)
    if request.HasField("expiration"):
        context.expiration = request.expiration.seconds
    return context


def _quote(context: ContextInfo, request: pb.SendRequest, to: str, addresses: Addresses) -> None:
    ref = request.reply_to
    chat = addresses.chat_of(ref.chat)
    context.stanzaID = ref.message_id
    context.participant = addresses.own_address(chat) if ref.from_me else _author(ref, chat)
    context.quotedMessage.CopyFrom(Message(conversation=request.quoted_text))
    if chat != addresses.chat_of(to):
        # A private reply to a message of a group.
        context.remoteJID = chat


def _author(ref: pb.MessageRef, chat: str) -> str:
    return ref.sender if _is_group(ref.chat) else chat


def _is_group(jid: str) -> bool:
    return jid.endswith("@g.us")
