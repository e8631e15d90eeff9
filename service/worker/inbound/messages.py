"""Converts neonize's message events to frames. Pure: no socket, no client, no clock except the one in the event.

No message may be lost because of its content. Content that has no type, is too large or cannot be parsed is delivered
as raw bytes, and the event says so.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import DecodeError
from neonize.proto.Neonize_pb2 import MessageInfo, NewsLetterMessageMeta, UndecryptableMessage
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message, ProtocolMessage, SecretEncryptedMessage

from service.worker.identities import LidOf, complete, unknown
from service.worker.inbound import dedup_keys
from service.worker.inbound.content.content import content_of, names_of, protocol_type, text_of
from service.worker.inbound.content.contexts import context_of
from service.worker.inbound.content.limits import BODY, Bounds, past_moment
from service.worker.inbound.content.reading import Reading
from service.worker.inbound.content.targets import Source
from service.worker.inbound.content.unwrap import unwrapped
from service.worker.inbound.message_source import (
    address,
    addressing_mode,
    chat_alternative,
    fill_source,
    sent_time,
    source_of,
)
from service.worker.inbound.translate import build_inbound_frame
from zap.v1 import event_pb2 as pb
from zap.worker.v1 import frames_pb2, inbound_pb2

RAW = 1024 * 1024
"""Maximum bytes of a message in one event. gRPC clients refuse more than 4 MiB by default, so a larger event, which any
stranger can cause, would block its consumers."""

_log = logging.getLogger(__name__)

_VIEW_ONCE = frozenset({"viewOnceMessage", "viewOnceMessageV2", "viewOnceMessageV2Extension"})

#: Protocol messages that are meant for people.
_FOR_PEOPLE = frozenset({ProtocolMessage.REVOKE, ProtocolMessage.MESSAGE_EDIT, ProtocolMessage.EPHEMERAL_SETTING})
#: Protocol messages between the account's devices. They carry keys, which no event may contain.
_BETWEEN_DEVICES = frozenset(
    {
        ProtocolMessage.EPHEMERAL_SYNC_RESPONSE,
        ProtocolMessage.HISTORY_SYNC_NOTIFICATION,
        ProtocolMessage.APP_STATE_SYNC_KEY_SHARE,
        ProtocolMessage.APP_STATE_SYNC_KEY_REQUEST,
        ProtocolMessage.MSG_FANOUT_BACKFILL_REQUEST,
        ProtocolMessage.INITIAL_SECURITY_NOTIFICATION_SETTING_SYNC,
        ProtocolMessage.APP_STATE_FATAL_EXCEPTION_NOTIFICATION,
        ProtocolMessage.PEER_DATA_OPERATION_REQUEST_MESSAGE,
        ProtocolMessage.PEER_DATA_OPERATION_REQUEST_RESPONSE_MESSAGE,
        ProtocolMessage.LID_MIGRATION_MAPPING_SYNC,
        ProtocolMessage.COEX_STATE_SYNC,
        ProtocolMessage.SHARED_DEVICE_CONTACT_HASH_KEY_SHARE,
        ProtocolMessage.SHARED_DEVICE_CONTACT_HASH_KEY_REQUEST,
    }
)


def frames(event: inbound_pb2.InboundMessage, lid_of: LidOf = unknown) -> Iterator[frames_pb2.Frame]:
    """Yield the frames of an inbound message: none if it is not meant for people, several if it is very large.

    The first message to a group after a change of members comes as two events with one id: only keys, then the text.
    """
    info = MessageInfo.FromString(event.info)
    if _is_between_own_devices(info):
        return
    complete(info.MessageSource, lid_of)
    raw = event.raw or event.message
    message = _parsed(event.message or raw)
    if message is not None and not is_for_people(message, from_me=info.MessageSource.IsFromMe):
        return
    if message is not None and names_of(unwrapped(message).content) == ["placeholderMessage"]:
        yield _unreadable(info, reason=pb.MessageUnreadable.REASON_PHONE_ONLY)
        return
    received = _received(info, event)
    _fill_content(received, message, source_of(info))
    received.raw, received.raw_size = raw[:RAW], len(raw)
    parts = _parts(received, message)
    yield _frame(info, parts, pb.Event.TYPE_MESSAGE_RECEIVED, message_received=received)
    for offset in range(RAW, len(raw), RAW):
        part = _raw_part(received, raw, offset)
        yield _frame(info, [*parts, f"from {offset}"], pb.Event.TYPE_MESSAGE_RAW_PART, message_raw_part=part)


def unreadable(event: UndecryptableMessage, lid_of: LidOf = unknown) -> frames_pb2.Frame | None:
    """Return the frame of a message that the library could not read and requests again; None between own devices."""
    if _is_between_own_devices(event.Info):
        return None
    complete(event.Info.MessageSource, lid_of)
    reason = (
        pb.MessageUnreadable.REASON_UNAVAILABLE if event.IsUnavailable else pb.MessageUnreadable.REASON_UNDECRYPTABLE
    )
    return _unreadable(
        event.Info,
        reason=reason,
        is_retry_requested=True,
        is_hidden=event.DecryptFailMode == UndecryptableMessage.DECRYPT_FAIL_HIDE,
    )


def is_for_people(message: Any, *, from_me: bool) -> bool:
    """Return whether a message contains more than keys and agreements between devices."""
    inner = unwrapped(message).content
    names = names_of(inner)
    if names == ["protocolMessage"]:
        kind = protocol_type(inner.protocolMessage)
        # From the account's devices an unknown kind may carry keys; from other people's devices it cannot.
        return kind in _FOR_PEOPLE or not (from_me or kind in _BETWEEN_DEVICES)
    return bool(names)


def _is_between_own_devices(info: MessageInfo) -> bool:
    """Return whether the account's devices sent this to each other. The category alone can be forged by any sender."""
    return bool(info.MessageSource.IsFromMe and info.Category == "peer")


def _parsed(data: bytes) -> Any:
    """Return a waE2E.Message; None if Python cannot parse it, though the library could."""
    try:
        return Message.FromString(data)
    except DecodeError:
        _log.warning("A message of %d bytes cannot be parsed; only its raw bytes are delivered.", len(data))
        return None


def _fill_content(received: pb.MessageReceived, message: Any, source: Source) -> None:
    if message is None:
        received.content.SetInParent()
        return
    reading = Reading(source, Bounds())
    inner, wrappings = unwrapped(message)
    try:
        content = content_of(message, reading)
        context = context_of(inner, reading)
    except Exception as error:  # noqa: BLE001 - content that is converted wrongly must not lose the message
        # The text of the error may contain the message, so log only its type.
        _log.error("Message content cannot be converted; delivering only raw bytes: %s", type(error).__name__)
        received.content.SetInParent()
        return
    received.content.CopyFrom(content)
    if context is not None:
        received.context.CopyFrom(context)
    received.text = text_of(content)[:BODY]
    received.is_truncated |= reading.bounds.has_cut
    received.is_disappearing |= "ephemeralMessage" in wrappings
    received.is_view_once |= not wrappings.isdisjoint(_VIEW_ONCE) or content.media.is_view_once
    received.is_edit |= "editedMessage" in wrappings or content.kind == content.KIND_EDIT or _is_encrypted_edit(inner)


def _is_encrypted_edit(inner: Any) -> bool:
    return bool(inner.secretEncryptedMessage.secretEncType == SecretEncryptedMessage.MESSAGE_EDIT)


def _received(info: MessageInfo, event: inbound_pb2.InboundMessage) -> pb.MessageReceived:
    bounds, source = Bounds(), info.MessageSource
    received = pb.MessageReceived(
        push_name=bounds.text(info.Pushname),
        addressing_mode=addressing_mode(source),
        sender_device=source.Sender.Device,
        verified_name=bounds.text(info.VerifiedName.Details.verifiedName),
        is_disappearing=event.is_ephemeral,
        is_view_once=event.is_view_once,
        is_edit=event.is_edit,
        is_multicast=info.Multicast,
        stanza_type=bounds.text(info.Type),
        media_type=bounds.text(info.MediaType),
        category=bounds.text(info.Category),
        edit_attribute=bounds.text(info.Edit),
        retry_count=event.retry_count,
        unavailable_request_id=bounds.text(event.unavailable_request_id),
        broadcast_owner=address(source.BroadcastListOwner, bounds),
        broadcast_recipients=[
            pb.BroadcastRecipient(lid=address(to.LID, bounds), phone_number=address(to.PN, bounds))
            for to in bounds.items(source.BroadcastRecipients)
        ],
        newsletter_server_id=info.ServerID,
        newsletter_edit_time=past_moment(NewsLetterMessageMeta.FromString(event.newsletter).EditTS),
        chat_alternative=address(chat_alternative(source), bounds),
    )
    fill_source(received, info, bounds)
    received.is_truncated = bounds.has_cut
    return received


def _parts(received: pb.MessageReceived, message: Any) -> list[str]:
    """Return what distinguishes the messages of one id, for the dedup key."""
    names = names_of(unwrapped(message).content) if message is not None else []
    # An edit of a newsletter post has the id of that post.
    edits = (f"edit {received.edit_attribute}", f"edited at {received.newsletter_edit_time.seconds}")
    # An edit that the phone sends on request has the id of the message that it edits.
    return [*names, *edits, *(["is edit"] if received.is_edit else [])]


def _raw_part(received: pb.MessageReceived, raw: bytes, offset: int) -> pb.MessageRawPart:
    return pb.MessageRawPart(
        message_id=received.message_id,
        chat=received.chat,
        sender=received.sender,
        offset=offset,
        raw=raw[offset : offset + RAW],
    )


def _frame(
    info: MessageInfo, parts: Iterable[str], kind: "pb.Event.Type.ValueType", **payload: Any
) -> frames_pb2.Frame:
    frame = build_inbound_frame(sent_time(info), kind, **payload)
    frame.origin = dedup_keys.of_message(info, parts)
    return frame


def _unreadable(info: MessageInfo, **fields: Any) -> frames_pb2.Frame:
    bounds = Bounds()
    event = pb.MessageUnreadable(push_name=bounds.text(info.Pushname), **fields)
    fill_source(event, info, bounds)
    parts = [f"unreadable {event.reason}"]
    return _frame(info, parts, pb.Event.TYPE_MESSAGE_UNREADABLE, message_unreadable=event)
