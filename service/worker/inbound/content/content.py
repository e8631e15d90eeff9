"""Converts the content of a message from waE2E.Message to zap.v1.Content, by one table of WhatsApp's fields. Pure.

A field that is in no table here is reported by its name only; its content is in the raw bytes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from google.protobuf.unknown_fields import UnknownFieldSet
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import ProtocolMessage

from service.worker.inbound.content import business, cards, media, references, text
from service.worker.inbound.content.reading import Reading
from service.worker.inbound.content.unwrap import known_names, unwrapped
from zap.v1 import content_pb2 as pb

_UNKNOWN_SEARCH_BYTES = 16 * 1024
"""Largest message that is searched for unknown fields: each takes 3 µs, and there can be millions."""


class Form(NamedTuple):
    """How a field of waE2E.Message is converted."""

    kind: "pb.Content.Kind.ValueType"
    field: str
    """The field of zap.v1.Content."""
    convert: Callable[[Any, Reading], Any]
    """Returns the value of the field; None for a variant that is unknown here."""


def content_of(message: Any, reading: Reading) -> pb.Content:
    """Return the content of a message, whatever wrappings it has."""
    inner = unwrapped(message).content
    names = names_of(inner)
    if not names:
        return pb.Content()
    name = next((name for name in names if name in FORMS or name == "protocolMessage"), names[0])
    content = _convert(name, inner, reading)
    bounds = reading.bounds
    content.other_fields.extend(bounds.text(other) for other in bounds.items(names) if other != name)
    return content


def names_of(inner: Any) -> list[str]:
    """Return the names of the fields with content in an unwrapped message, or their numbers if all are unknown."""
    return known_names(inner) or _unknown_of(inner)


def _unknown_of(inner: Any) -> list[str]:
    if inner.ByteSize() > _UNKNOWN_SEARCH_BYTES:
        return [""]
    unknown: Iterable[Any] = UnknownFieldSet(inner)  # type: ignore[assignment]  # its stubs do not say that it can be iterated
    return sorted({str(field.field_number) for field in unknown})


def protocol_type(body: Any) -> "ProtocolMessage.Type.ValueType | None":
    """Return the type of a protocolMessage; None for an unknown one, whose default would be a revoke."""
    return body.type if body.HasField("type") else None


def text_of(content: pb.Content) -> str:
    """Return the text of a content, empty if its kind has none."""
    text = _TEXTS.get(content.WhichOneof("content") or "")
    return text(content) if text else ""


def _convert(name: str, inner: Any, reading: Reading) -> pb.Content:
    if name == "protocolMessage" and (kind := protocol_type(inner.protocolMessage)) is not None:
        field = f"protocolMessage.{ProtocolMessage.Type.Name(kind)}"
        return _in_form(_PROTOCOL.get(kind), field, inner.protocolMessage, reading)
    return _in_form(FORMS.get(name), name, getattr(inner, name, None), reading)


def _in_form(form: Form | None, field: str, body: Any, reading: Reading) -> pb.Content:
    if form is None:
        return pb.Content(field=field)
    if reading.is_inner and form in _OUTER:
        return pb.Content(kind=form.kind, field=field)
    if (converted := form.convert(body, reading)) is None:
        return pb.Content(field=field)
    return pb.Content(kind=form.kind, field=field, **{form.field: converted})


def _edit(body: Any, reading: Reading) -> pb.EditContent:
    return pb.EditContent(target=reading.target(body.key), content=content_of(body.editedMessage, _within(reading)))


def _comment(body: Any, reading: Reading) -> pb.CommentContent:
    written = content_of(body.message, _within(reading))
    return pb.CommentContent(target=reading.target(body.targetMessageKey), text=text_of(written))


def _within(reading: Reading) -> Reading:
    return Reading(reading.source, reading.bounds, is_inner=True)


def _media(convert: Callable[[Any, Any], pb.MediaContent]) -> Callable[[Any, Reading], pb.MediaContent]:
    return lambda body, reading: convert(body, reading.bounds)


_TEXTS: Mapping[str, Callable[[pb.Content], str]] = {
    "text": lambda content: content.text.body,
    "media": lambda content: content.media.caption,
    "edit": lambda content: text_of(content.edit.content),
    "poll": lambda content: content.poll.question,
    "menu": lambda content: content.menu.body,
    "selection": lambda content: content.selection.text or content.selection.id,
    "comment": lambda content: content.comment.text,
    "group_invitation": lambda content: content.group_invitation.caption,
    "location": lambda content: content.location.comment,
    "order": lambda content: content.order.message,
    "product": lambda content: content.product.body,
}

_EDIT = Form(pb.Content.KIND_EDIT, "edit", _edit)
_COMMENT = Form(pb.Content.KIND_COMMENT, "comment", _comment)
#: Forms that contain another content.
_OUTER = (_EDIT, _COMMENT)
#: Forms by the type of a protocolMessage.
_PROTOCOL: Mapping[int, Form] = {
    ProtocolMessage.REVOKE: Form(pb.Content.KIND_REVOKE, "revoke", references.revoke),
    ProtocolMessage.MESSAGE_EDIT: _EDIT,
    ProtocolMessage.EPHEMERAL_SETTING: Form(
        pb.Content.KIND_DISAPPEARING_TIMER, "disappearing_timer", text.disappearing_timer
    ),
}

#: Forms by the field of waE2E.Message.
FORMS: Mapping[str, Form] = {
    "conversation": Form(pb.Content.KIND_TEXT, "text", text.conversation),
    "extendedTextMessage": Form(pb.Content.KIND_TEXT, "text", text.extended_text),
    "imageMessage": Form(pb.Content.KIND_IMAGE, "media", _media(media.media)),
    "videoMessage": Form(pb.Content.KIND_VIDEO, "media", _media(media.media)),
    "ptvMessage": Form(pb.Content.KIND_VIDEO, "media", _media(media.video_note)),
    "audioMessage": Form(pb.Content.KIND_AUDIO, "media", _media(media.media)),
    "documentMessage": Form(pb.Content.KIND_DOCUMENT, "media", _media(media.media)),
    "stickerMessage": Form(pb.Content.KIND_STICKER, "media", _media(media.media)),
    "reactionMessage": Form(pb.Content.KIND_REACTION, "reaction", references.reaction),
    "pollCreationMessage": Form(pb.Content.KIND_POLL, "poll", text.poll),
    "pollCreationMessageV2": Form(pb.Content.KIND_POLL, "poll", text.poll),
    "pollCreationMessageV3": Form(pb.Content.KIND_POLL, "poll", text.poll),
    "pollCreationMessageV5": Form(pb.Content.KIND_POLL, "poll", text.poll),
    "pollCreationMessageV6": Form(pb.Content.KIND_POLL, "poll", text.poll),
    "pollUpdateMessage": Form(pb.Content.KIND_POLL_VOTE, "poll_vote", references.poll_vote),
    "locationMessage": Form(pb.Content.KIND_LOCATION, "location", cards.location),
    "liveLocationMessage": Form(pb.Content.KIND_LIVE_LOCATION, "location", cards.live_location),
    "contactMessage": Form(pb.Content.KIND_CONTACTS, "contacts", cards.contact),
    "contactsArrayMessage": Form(pb.Content.KIND_CONTACTS, "contacts", cards.contacts),
    "buttonsMessage": Form(pb.Content.KIND_MENU, "menu", business.buttons),
    "listMessage": Form(pb.Content.KIND_MENU, "menu", business.option_list),
    "templateMessage": Form(pb.Content.KIND_MENU, "menu", business.template),
    "interactiveMessage": Form(pb.Content.KIND_MENU, "menu", business.interactive),
    "buttonsResponseMessage": Form(pb.Content.KIND_SELECTION, "selection", business.button_reply),
    "listResponseMessage": Form(pb.Content.KIND_SELECTION, "selection", business.list_reply),
    "templateButtonReplyMessage": Form(pb.Content.KIND_SELECTION, "selection", business.template_reply),
    "interactiveResponseMessage": Form(pb.Content.KIND_SELECTION, "selection", business.interactive_reply),
    "groupInviteMessage": Form(pb.Content.KIND_GROUP_INVITATION, "group_invitation", cards.group_invitation),
    "eventMessage": Form(pb.Content.KIND_APPOINTMENT, "appointment", cards.appointment),
    "albumMessage": Form(pb.Content.KIND_ALBUM, "album", text.album),
    "productMessage": Form(pb.Content.KIND_PRODUCT, "product", business.product),
    "orderMessage": Form(pb.Content.KIND_ORDER, "order", business.order),
    "pinInChatMessage": Form(pb.Content.KIND_PIN, "pin", references.pin),
    "keepInChatMessage": Form(pb.Content.KIND_KEEP, "keep", references.keep),
    "encReactionMessage": Form(pb.Content.KIND_ENCRYPTED, "encrypted", references.encrypted),
    "encCommentMessage": Form(pb.Content.KIND_ENCRYPTED, "encrypted", references.encrypted),
    "secretEncryptedMessage": Form(pb.Content.KIND_ENCRYPTED, "encrypted", references.encrypted),
    "encEventResponseMessage": Form(pb.Content.KIND_ENCRYPTED, "encrypted", references.encrypted_reply),
    "commentMessage": _COMMENT,
}
