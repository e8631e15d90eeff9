"""Converts the sender, chat and time of a message to the form that consumers get."""

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from neonize.proto.Neonize_pb2 import AddressingMode, MessageInfo

from service.worker.addresses import person_to_text
from service.worker.inbound.content.limits import Bounds, past_moment, readable
from service.worker.inbound.content.targets import Source
from zap.v1 import event_pb2 as pb

_KINDS = {
    "s.whatsapp.net": pb.CHAT_KIND_PERSON,
    "c.us": pb.CHAT_KIND_PERSON,
    "lid": pb.CHAT_KIND_PERSON,
    "hosted": pb.CHAT_KIND_PERSON,
    "hosted.lid": pb.CHAT_KIND_PERSON,
    "g.us": pb.CHAT_KIND_GROUP,
    "broadcast": pb.CHAT_KIND_BROADCAST_LIST,
    "newsletter": pb.CHAT_KIND_NEWSLETTER,
    "bot": pb.CHAT_KIND_BOT,
}
_TWO_PERSON_KINDS = frozenset({pb.CHAT_KIND_PERSON, pb.CHAT_KIND_BOT})
_MODES: dict[int, "pb.AddressingMode.ValueType"] = {
    AddressingMode.PN: pb.ADDRESSING_MODE_PHONE_NUMBER,
    AddressingMode.LID: pb.ADDRESSING_MODE_LID,
}


def fill_source(event: pb.MessageReceived | pb.MessageUnreadable, info: MessageInfo, bounds: Bounds) -> None:
    """Set the fields of id, sender, chat and time, which both events have."""
    source = info.MessageSource
    event.message_id = bounds.text(info.ID)
    event.chat = address(source.Chat, bounds)
    event.sender = address(source.Sender, bounds)
    event.sender_alternative = address(source.SenderAlt, bounds)
    event.from_me = source.IsFromMe
    event.chat_kind = chat_kind(source.Chat)
    event.is_group = event.chat_kind == pb.CHAT_KIND_GROUP
    if (time := sent_time(info)) is not None:
        event.sent_time.CopyFrom(time)


def sent_time(info: MessageInfo) -> Timestamp | None:
    """Return when a message was sent according to WhatsApp; None for an impossible time."""
    return past_moment(*divmod(info.Timestamp, 1000))


def chat_kind(chat: Any) -> "pb.ChatKind.ValueType":
    """Return the kind of the chat with this address."""
    if person_to_text(chat) == "status@broadcast":
        return pb.CHAT_KIND_STATUS
    return _KINDS.get(readable(chat.Server), pb.CHAT_KIND_UNSPECIFIED)


def addressing_mode(source: Any) -> "pb.AddressingMode.ValueType":
    """Return whether the chat uses LIDs or numbers; unspecified if the library does not know the mode."""
    mode = source.AddressingMode if source.HasField("AddressingMode") else 0
    return _MODES.get(mode, pb.ADDRESSING_MODE_UNSPECIFIED)


def source_of(info: Any) -> Source:
    """Return where a message came from, in the form needed to resolve the message keys in it."""
    source = info.MessageSource
    return Source(
        chat=person_to_text(source.Chat),
        sender=person_to_text(source.Sender),
        from_me=source.IsFromMe,
        is_group=chat_kind(source.Chat) not in _TWO_PERSON_KINDS,
        edit_attribute=readable(info.Edit),
    )


def chat_alternative(source: Any) -> Any:
    """Return the other address of a chat of two people, which is that of the other person; else an empty JID."""
    if chat_kind(source.Chat) != pb.CHAT_KIND_PERSON:
        return MessageInfo().MessageSource.Chat
    return source.RecipientAlt if source.IsFromMe else source.SenderAlt


def address(jid: Any, bounds: Bounds) -> str:
    """Return the address of a person or a chat in WhatsApp's notation, empty if it is absent."""
    return bounds.text(person_to_text(jid))
