"""Convert the requests of MessageService, and check what the schema cannot express. Every error names its field.

Requests have passed `service.protocol.validation` before. The core passes on what a session process gets: the request
without session_id, request_id and recipient, in which each MessageRef names a message by WhatsApp's id.
"""

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from typing import TypeVar

from google.protobuf.message import Message

from service.domain.errors import FailedPrecondition
from service.domain.records import MessageKind, NewMessage, OutboundMessage, TypedPayload
from service.protocol.media import check_media
from service.protocol.message_refs import check_chat, check_is_own, is_group, may_be_same, resolve
from service.protocol.parsing import phone_digits, refuse
from service.protocol.payloads import payload_of
from zap.v1 import message_pb2 as pb
from zap.worker.v1 import calls_pb2

_AboutTarget = pb.EditRequest | pb.RevokeRequest | pb.PinInChatRequest
_RequestT = TypeVar("_RequestT", bound=Message)

_JPEG = b"\xff\xd8\xff"
_TAKES_NOTHING_ELSE = ("reply_to", "quoted_text", "expiration", "typing_for")
"""Fields of SendRequest that do not apply to a reaction."""


def new_message(request: pb.SendRequest, sent: Mapping[str, OutboundMessage]) -> NewMessage:
    """Return the message that Send requests. `sent`: the messages that `referenced_ids` names."""
    to = recipient(request.to)
    _check_content(request, to)
    content = _copy(request)
    if content.HasField("reply_to"):
        _resolve_in(content.reply_to, "reply_to", sent, to)
    elif content.quoted_text:
        raise refuse("quoted_text", "is of reply_to, which is not set")
    if content.HasField("reaction"):
        _resolve_in(content.reaction.target, "reaction.target", sent, to)
        check_chat(content.reaction.target, "reaction.target.chat", to)
        if (earlier := sent.get(request.reaction.target.request_id)) is not None and not may_be_same(earlier.to, to):
            raise refuse("reaction.target.request_id", "must name a message to the recipient of the request")
    return NewMessage(request.request_id, to, payload_of(content), fingerprint(to, request))


def new_edit(request: pb.EditRequest, sent: Mapping[str, OutboundMessage]) -> NewMessage:
    """Return the edit that Edit requests. `sent`: as for `new_message`."""
    content = _copy(request)
    _resolve_in(content.target, "target", sent)
    check_is_own(content.target, "target.from_me", "only the author of a message can edit it")
    _check_text(content.text, content.target.chat)
    return _about_target(request, content, MessageKind.EDIT)


def new_revoke(request: pb.RevokeRequest, sent: Mapping[str, OutboundMessage]) -> NewMessage:
    """Return the deletion that Revoke requests. `sent`: as for `new_message`."""
    content = _copy(request)
    _resolve_in(content.target, "target", sent)
    if not is_group(content.target.chat):
        check_is_own(content.target, "target.from_me", "another person's message can be deleted in a group only")
    return _about_target(request, content, MessageKind.REVOKE)


def new_pin(request: pb.PinInChatRequest, sent: Mapping[str, OutboundMessage]) -> NewMessage:
    """Return the pin, or its removal, that PinInChat requests. `sent`: as for `new_message`."""
    content = _copy(request)
    _resolve_in(content.target, "target", sent)
    return _about_target(request, content, MessageKind.PIN)


def mark_read(request: pb.MarkReadRequest) -> TypedPayload:
    """Return the call to a session process that MarkRead requests."""
    if is_group(request.chat):
        if not request.sender:
            raise refuse("sender", "must name the author of the messages in a group")
    elif request.sender and not may_be_same(request.sender, request.chat):
        raise refuse("sender", "must be the chat, or empty, outside of a group")
    return payload_of(
        calls_pb2.MarkRead(
            chat=request.chat,
            sender=request.sender if is_group(request.chat) else request.chat,
            message_ids=request.message_ids,
            is_played=request.is_played,
        )
    )


def recipient(to: str) -> str:
    """Return the JID of a recipient, given as a JID or a phone number."""
    return to if "@" in to else f"{phone_digits(to)}@s.whatsapp.net"


def referenced_ids(request: Message) -> Iterator[str]:
    """Yield the request_id of each MessageRef in a request that has one."""
    for field, value in request.ListFields():
        if isinstance(value, pb.MessageRef):
            if value.request_id:
                yield value.request_id
        elif field.message_type is not None and not field.is_repeated:
            yield from referenced_ids(value)


def check_was_sent(message: OutboundMessage) -> OutboundMessage:
    """Return a message that others can refer to. Raise FailedPrecondition (MESSAGE_NOT_SENT) if it has no id yet."""
    if message.message_id:
        return message
    raise FailedPrecondition(
        f"the message with request_id {message.request_id!r} is {message.state.value} and has no id of WhatsApp's",
        reason="MESSAGE_NOT_SENT",
        metadata={
            "session_id": message.session_id,
            "request_id": message.request_id,
            "state": message.state.value,
        },
    )


def fingerprint(to: str, request: Message) -> bytes:
    """Return the hash by which a repeated request_id is recognised as the same message.

    References count as the caller gives them: what they name may be forgotten before the request is repeated.
    """
    # What is hashed never changes: a caller may repeat a request_id after a deploy, and another hash would refuse it.
    # So a plain text keeps the form of the first release.
    content = _copy(request)
    if isinstance(content, pb.SendRequest) and content == pb.SendRequest(text=pb.Text(body=content.text.body)):
        return hashlib.sha256(f"text\0{to}\0{content.text.body}".encode()).digest()
    prefix = f"{content.DESCRIPTOR.full_name}\0{to}\0"
    return hashlib.sha256(prefix.encode() + content.SerializeToString(deterministic=True)).digest()


def _copy(request: _RequestT) -> _RequestT:
    """Return what a request asks to send, without whom it is from and to, and without fields of a later release."""
    content = type(request)()
    content.CopyFrom(request)
    content.DiscardUnknownFields()
    for field in ("session_id", "request_id", "to"):
        if field in content.DESCRIPTOR.fields_by_name:
            content.ClearField(field)
    return content


def _resolve_in(ref: pb.MessageRef, field: str, sent: Mapping[str, OutboundMessage], to: str = "") -> None:
    ref.CopyFrom(resolve(ref, field, sent, to))


def _about_target(request: _AboutTarget, content: _AboutTarget, kind: MessageKind) -> NewMessage:
    """Return a message about another one, which goes to the chat of that one."""
    # The content holds the reference, and with it the chat as far as the caller names it.
    return NewMessage(request.request_id, content.target.chat, payload_of(content), fingerprint("", request), kind)


def _check_content(request: pb.SendRequest, to: str) -> None:
    match request.WhichOneof("content"):
        case "text":
            _check_text(request.text, to)
        case "poll":
            _check_poll(request.poll)
        case "reaction":
            _check_reaction(request)
        case "image" | "video" | "audio" | "document" | "sticker" as field:
            check_media(field, getattr(request, field))


def _check_text(text: pb.Text, to: str) -> None:
    if text.mentions_everyone and not is_group(to):
        raise refuse("text.mentions_everyone", "is possible in a group only")
    if text.HasField("preview"):
        if text.preview.link not in text.body:
            raise refuse("text.preview.link", "must stand in text.body")
        if text.preview.thumbnail and not text.preview.thumbnail.startswith(_JPEG):
            raise refuse("text.preview.thumbnail", "must be a JPEG")


def _check_poll(poll: pb.Poll) -> None:
    if not poll.question.strip():
        raise refuse("poll.question", "must not be blank")
    for index, option in enumerate(poll.options):
        if not option.strip():
            raise refuse(f"poll.options[{index}]", "must not be blank")
    if poll.most_choices > len(poll.options):
        raise refuse("poll.most_choices", f"must be at most the number of options, which is {len(poll.options)}")


def _check_reaction(request: pb.SendRequest) -> None:
    for field in _TAKES_NOTHING_ELSE:
        if any(field == given.name for given, _ in request.ListFields()):
            raise refuse(field, "does not apply to a reaction")
    emoji = request.reaction.emoji
    if emoji and (emoji.isascii() or not all(map(_may_be_of_emoji, emoji))):
        raise refuse("reaction.emoji", "must be an emoji, or empty to remove the reaction")


def _may_be_of_emoji(character: str) -> bool:
    """Return whether a character is neither a letter, except for one that is an emoji, nor a space, nor a control."""
    category = unicodedata.category(character)
    return character == "\u2139" or not (category[0] in "LZ" or category == "Cc")
