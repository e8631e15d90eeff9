"""Who wrote a message, where and when: WhatsApp's addresses and times as consumers get them."""

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
_OF_TWO = frozenset({pb.CHAT_KIND_PERSON, pb.CHAT_KIND_BOT})
_MODES: dict[int, "pb.AddressingMode.ValueType"] = {
    AddressingMode.PN: pb.ADDRESSING_MODE_PHONE_NUMBER,
    AddressingMode.LID: pb.ADDRESSING_MODE_LID,
}


def fill_source(told: pb.MessageReceived | pb.MessageUnreadable, info: MessageInfo, bounds: Bounds) -> None:
    """What both say of where and when."""
    source = info.MessageSource
    told.message_id = bounds.text(info.ID)
    told.chat = address(source.Chat, bounds)
    told.sender = address(source.Sender, bounds)
    told.sender_alternative = address(source.SenderAlt, bounds)
    told.from_me = source.IsFromMe
    told.chat_kind = chat_kind(source.Chat)
    told.is_group = told.chat_kind == pb.CHAT_KIND_GROUP
    if (time := sent_time(info)) is not None:
        told.sent_time.CopyFrom(time)


def sent_time(info: MessageInfo) -> Timestamp | None:
    """When WhatsApp says that it was sent; None for a time that cannot be."""
    return past_moment(*divmod(info.Timestamp, 1000))


def chat_kind(chat: Any) -> "pb.ChatKind.ValueType":
    """What kind of chat has this address."""
    if person_to_text(chat) == "status@broadcast":
        return pb.CHAT_KIND_STATUS
    return _KINDS.get(readable(chat.Server), pb.CHAT_KIND_UNSPECIFIED)


def addressing_mode(source: Any) -> "pb.AddressingMode.ValueType":
    """How the chat's people address each other; one that the library does not understand it gives as 0."""
    mode = source.AddressingMode if source.HasField("AddressingMode") else 0
    return _MODES.get(mode, pb.ADDRESSING_MODE_UNSPECIFIED)


def source_of(info: Any) -> Source:
    """The same for those who read keys, which name messages from their sender's point of view."""
    source = info.MessageSource
    return Source(
        chat=person_to_text(source.Chat),
        sender=person_to_text(source.Sender),
        from_me=source.IsFromMe,
        is_group=chat_kind(source.Chat) not in _OF_TWO,
        edit_attribute=readable(info.Edit),
    )


def chat_alternative(source: Any) -> Any:
    """Between two people: the chat is named after the other one."""
    if chat_kind(source.Chat) != pb.CHAT_KIND_PERSON:
        return MessageInfo().MessageSource.Chat
    return source.RecipientAlt if source.IsFromMe else source.SenderAlt


def address(jid: Any, bounds: Bounds) -> str:
    """A person or a chat, as WhatsApp writes it; empty for nobody."""
    return bounds.text(person_to_text(jid))
