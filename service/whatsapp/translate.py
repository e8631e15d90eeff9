"""From neonize's event protobufs to frames. Pure: no socket, no client, no clock but the one in the event."""

import datetime
from typing import Any

from neonize.proto import Neonize_pb2 as neonize
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import ProtocolMessage

from service.domain.disconnects import Cause
from service.whatsapp import origins
from service.whatsapp.addresses import person_to_text, to_text
from service.whatsapp.log_signs import ban_end
from service.whatsapp.reports import timestamp
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2

_WRAPPERS = (
    "ephemeralMessage",
    "viewOnceMessage",
    "viewOnceMessageV2",
    "viewOnceMessageV2Extension",
    "documentWithCaptionMessage",
    "editedMessage",
    "deviceSentMessage",
    "lottieStickerMessage",
    "groupMentionedMessage",
)
_WITH_CAPTION = ("imageMessage", "videoMessage", "documentMessage")
_MOST_WRAPPERS = 8

#: Parts of a message that no person wrote and no person reads: keys and secrets for the devices.
_MACHINERY = frozenset(
    {
        "senderKeyDistributionMessage",
        "fastRatchetKeySenderKeyDistributionMessage",
        "groupRootKeyShare",
        "messageContextInfo",
    }
)

#: What the protocol tells people about messages; its other types are between the account's own devices, and carry keys.
_TOLD = frozenset({ProtocolMessage.REVOKE, ProtocolMessage.MESSAGE_EDIT, ProtocolMessage.EPHEMERAL_SETTING})

_RECEIPTS = {
    neonize.Receipt.DELIVERED: event_pb2.Receipt.KIND_DELIVERED,
    # The device has it; nobody is looking at it.
    neonize.Receipt.INACTIVE: event_pb2.Receipt.KIND_DELIVERED,
    neonize.Receipt.READ: event_pb2.Receipt.KIND_READ,
    neonize.Receipt.PLAYED: event_pb2.Receipt.KIND_PLAYED,
    neonize.Receipt.RETRY: event_pb2.Receipt.KIND_RETRY,
    neonize.Receipt.READ_SELF: event_pb2.Receipt.KIND_READ_BY_OWNER,
    neonize.Receipt.PLAYED_SELF: event_pb2.Receipt.KIND_PLAYED_BY_OWNER,
    # neonize's name for what WhatsApp calls played-self; real server errors it has no number for (docs/neonize.md).
    neonize.Receipt.SERVER_ERROR: event_pb2.Receipt.KIND_PLAYED_BY_OWNER,
}

#: neonize has the names that WhatsApp gave these failures once; the numbers are 403 and 406.
_UNLINKED = {neonize.MAIN_DEVICE_GONE: Cause.ACCOUNT_LOCKED, neonize.UNKNOWN_LOGOUT: Cause.ACCOUNT_BANNED}

_REFUSALS = {
    neonize.BAD_USER_AGENT: Cause.CLIENT_OUTDATED,
    neonize.INTERNAL_SERVER_ERROR: Cause.WHATSAPP_ERROR,
    neonize.SERVICE_UNAVAILABLE: Cause.WHATSAPP_ERROR,
    neonize.EXPERIMENTAL: Cause.WHATSAPP_ERROR,
}


def happened(time: Any, kind: "event_pb2.Event.Type.ValueType", **payload: Any) -> frames_pb2.Frame:
    """Something that consumers are told. `payload`: the one field of zap.v1.Event that goes with its kind."""
    return frames_pb2.Frame(time=time, event=event_pb2.Event(type=kind, **payload))


def message(event: Any) -> frames_pb2.Frame | None:
    """An inbound message; None if it is only machinery.

    The first message to a group after a change of members comes as two events with one id: keys alone, then the text.
    """
    whole = event.Raw if event.HasField("Raw") else event.Message
    if event.Info.Category == "peer" or not is_for_people(event.Message):
        return None
    source = event.Info.MessageSource
    frame = happened(
        _milliseconds(event.Info.Timestamp),
        event_pb2.Event.TYPE_MESSAGE_RECEIVED,
        message_received=event_pb2.MessageReceived(
            message_id=event.Info.ID,
            chat=person_to_text(source.Chat),
            sender=person_to_text(source.Sender),
            sender_alternative=person_to_text(source.SenderAlt),
            push_name=event.Info.Pushname,
            from_me=source.IsFromMe,
            is_group=source.IsGroup,
            text=text_of(event.Message),
            raw=whole.SerializeToString(),
        ),
    )
    frame.origin = origins.of_message(event, parts_of(event.Message))
    return frame


def receipt(event: Any) -> frames_pb2.Frame | None:
    """A receipt; None if it is nobody's business: what devices of one account tell each other."""
    kind = _RECEIPTS.get(event.Type)
    if kind is None:
        return None
    source = event.MessageSource
    frame = happened(
        _seconds(event.Timestamp),
        event_pb2.Event.TYPE_RECEIPT,
        receipt=event_pb2.Receipt(
            message_ids=list(event.MessageIDs),
            kind=kind,
            chat=person_to_text(source.Chat),
            sender=to_text(source.Sender),
            sender_alternative=to_text(source.SenderAlt),
            is_group=source.IsGroup,
        ),
    )
    frame.origin = origins.of_receipt(event)
    return frame


def is_for_people(content: Any) -> bool:
    """Whether there is anything in a message besides keys and agreements between devices."""
    content = _unwrapped(content)
    parts = parts_of(content)
    if parts == {"protocolMessage"}:
        return content.protocolMessage.type in _TOLD
    return bool(parts)


def parts_of(content: Any) -> frozenset[str]:
    """The names of what a message holds, besides machinery."""
    return frozenset(field.name for field, _ in content.ListFields()) - _MACHINERY


def text_of(content: Any) -> str:
    """The text of a message, or the caption of what it carries; empty if there is neither."""
    content = _unwrapped(content)
    if content.HasField("conversation"):
        return str(content.conversation)
    if content.HasField("extendedTextMessage"):
        return str(content.extendedTextMessage.text)
    if content.HasField("protocolMessage") and content.protocolMessage.type == ProtocolMessage.MESSAGE_EDIT:
        return text_of(content.protocolMessage.editedMessage)
    return next((str(getattr(content, kind).caption) for kind in _WITH_CAPTION if content.HasField(kind)), "")


def device_saved(event: Any, lid: str) -> frames_pb2.Frame:
    """A scan that was accepted."""
    return frames_pb2.Frame(
        device_saved=frames_pb2.DeviceSaved(jid=to_text(event.ID), lid=lid, platform=event.Platform)
    )


def connected(device: Any) -> frames_pb2.Frame:
    """Logged in, as this device."""
    return frames_pb2.Frame(
        connected=frames_pb2.Connected(jid=to_text(device.JID), lid=lid_of(device), push_name=device.PushName)
    )


def lid_of(device: Any) -> str:
    """The hidden address of a device, if it is known."""
    return to_text(device.LID) if device.HasField("LID") and device.LID.User else ""


def logged_out(event: Any) -> frames_pb2.Ended:
    """The device was unlinked, or refused at login for good."""
    if not event.OnConnect:
        return _ended(Cause.LOGGED_OUT_ON_PHONE)
    cause = _UNLINKED.get(event.Reason, Cause.LOGGED_OUT_BY_WHATSAPP)
    return _ended(cause, neonize.ConnectFailureReason.Name(event.Reason))


def temporary_ban(event: Any, now: datetime.datetime) -> frames_pb2.Ended:
    """A ban for a time, perhaps with its end."""
    ended = _ended(Cause.TEMPORARILY_BANNED, neonize.TemporaryBan.TempBanReason.Name(event.Code))
    if (end := ban_end(event.Expire, now)) is not None:
        ended.until.CopyFrom(end)
    return ended


def connect_failure(event: Any) -> frames_pb2.Ended:
    """A failure at login that the library does not retry."""
    cause = _REFUSALS.get(event.Reason, Cause.CONNECTION_REFUSED)
    return _ended(cause, f"{neonize.ConnectFailureReason.Name(event.Reason)} {event.Message}".strip())


def _unwrapped(content: Any) -> Any:
    for _ in range(_MOST_WRAPPERS):
        wrapper = next((name for name in _WRAPPERS if content.HasField(name)), None)
        if wrapper is None:
            break
        content = getattr(content, wrapper).message
    return content


def _ended(cause: Cause, detail: str = "") -> frames_pb2.Ended:
    return frames_pb2.Ended(cause=cause.name, detail=detail)


def _seconds(value: int) -> Any:
    return timestamp(datetime.datetime.fromtimestamp(value, datetime.UTC)) if value > 0 else None


def _milliseconds(value: int) -> Any:
    return timestamp(datetime.datetime.fromtimestamp(value / 1000, datetime.UTC)) if value > 0 else None
