"""Converts neonize's other events to frames (messages are in `messages.py`). Pure: no socket, no client, no clock."""

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

from neonize.proto import Neonize_pb2 as neonize

from service.domain.disconnect_policy import Cause
from service.worker.addresses import person_to_text, to_text
from service.worker.identities import LidOf, complete, unknown
from service.worker.inbound import dedup_keys
from service.worker.inbound.content.limits import past_moment, readable
from service.worker.session.log_parser import ResendFailed, ban_end
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2

_RECEIPTS = {
    neonize.Receipt.DELIVERED: event_pb2.Receipt.KIND_DELIVERED,
    # The device has the message, but its app is not in use.
    neonize.Receipt.INACTIVE: event_pb2.Receipt.KIND_DELIVERED,
    neonize.Receipt.READ: event_pb2.Receipt.KIND_READ,
    neonize.Receipt.PLAYED: event_pb2.Receipt.KIND_PLAYED,
    neonize.Receipt.RETRY: event_pb2.Receipt.KIND_RETRY,
    neonize.Receipt.READ_SELF: event_pb2.Receipt.KIND_READ_BY_OWNER,
    neonize.Receipt.PLAYED_SELF: event_pb2.Receipt.KIND_PLAYED_BY_OWNER,
    # neonize's name for WhatsApp's played-self; it does not map real server errors (docs/neonize.md).
    neonize.Receipt.SERVER_ERROR: event_pb2.Receipt.KIND_PLAYED_BY_OWNER,
}

#: neonize uses WhatsApp's former names of these failures; the numbers are 403 and 406.
_UNLINKED = {neonize.MAIN_DEVICE_GONE: Cause.ACCOUNT_LOCKED, neonize.UNKNOWN_LOGOUT: Cause.ACCOUNT_BANNED}

_REFUSALS = {
    neonize.BAD_USER_AGENT: Cause.CLIENT_OUTDATED,
    neonize.INTERNAL_SERVER_ERROR: Cause.WHATSAPP_ERROR,
    neonize.SERVICE_UNAVAILABLE: Cause.WHATSAPP_ERROR,
    neonize.EXPERIMENTAL: Cause.WHATSAPP_ERROR,
}

_MAX_IDS_PER_EVENT = 1_000
_MAX_ID_CHARACTERS = 128  # WhatsApp's ids have at most 32.
_MAX_ADDRESS_CHARACTERS = 1_024


def build_inbound_frame(time: Any, kind: "event_pb2.Event.Type.ValueType", **payload: Any) -> frames_pb2.Frame:
    """Return the frame of an inbound event. `payload` is the one field of zap.v1.Event that belongs to its kind."""
    return frames_pb2.Frame(time=time, event=event_pb2.Event(type=kind, **payload))


def receipts(event: Any, lid_of: LidOf = unknown) -> Iterator[frames_pb2.Frame]:
    """Yield the frames of a receipt; none for a kind that only the devices of one account exchange.

    The sender decides how many messages a receipt names, and an event that is too large would block its consumers.
    """
    kind = _RECEIPTS.get(event.Type)
    if kind is not None:
        complete(event.MessageSource, lid_of)
        message_ids = [readable(message_id)[:_MAX_ID_CHARACTERS] for message_id in event.MessageIDs]
        for first in range(0, max(1, len(message_ids)), _MAX_IDS_PER_EVENT):
            yield _receipt(event, kind, message_ids[first : first + _MAX_IDS_PER_EVENT])


def _receipt(event: Any, kind: "event_pb2.Receipt.Kind.ValueType", message_ids: Sequence[str]) -> frames_pb2.Frame:
    source = event.MessageSource
    frame = build_inbound_frame(
        past_moment(event.Timestamp),
        event_pb2.Event.TYPE_RECEIPT,
        receipt=event_pb2.Receipt(
            message_ids=message_ids,
            kind=kind,
            chat=person_to_text(source.Chat),
            sender=to_text(source.Sender),
            sender_alternative=to_text(source.SenderAlt),
            is_group=source.IsGroup,
        ),
    )
    frame.origin = dedup_keys.of_receipt(event, message_ids)
    return frame


def resend_failed(parsed: ResendFailed) -> frames_pb2.Frame:
    """Return the frame of a failed resend. It has no number, because the log's callback must not wait for a commit."""
    failed = event_pb2.ResendFailed(
        message_id=parsed.message_id[:_MAX_ID_CHARACTERS],
        chat=parsed.chat[:_MAX_ADDRESS_CHARACTERS],
        device=parsed.device[:_MAX_ADDRESS_CHARACTERS],
        reason=parsed.reason,
    )
    frame = build_inbound_frame(None, event_pb2.Event.TYPE_RESEND_FAILED, resend_failed=failed)
    frame.origin = dedup_keys.of_resend_failed(failed)
    return frame


def device_saved(event: Any, lid: str) -> frames_pb2.Frame:
    """Return the frame of an accepted scan."""
    return frames_pb2.Frame(
        device_saved=frames_pb2.DeviceSaved(jid=to_text(event.ID), lid=lid, platform=event.Platform)
    )


def connected(device: Any) -> frames_pb2.Frame:
    """Return the frame of a login as this device."""
    return frames_pb2.Frame(
        connected=frames_pb2.Connected(jid=to_text(device.JID), lid=lid_of(device), push_name=device.PushName)
    )


def lid_of(device: Any) -> str:
    """Return the LID of a device, empty if it is not known."""
    return to_text(device.LID) if device.HasField("LID") and device.LID.User else ""


def logged_out(event: Any) -> frames_pb2.Ended:
    """Return the last frame of a process whose device was unlinked, or refused at login for good."""
    if not event.OnConnect:
        return _ended(Cause.LOGGED_OUT_ON_PHONE)
    cause = _UNLINKED.get(event.Reason, Cause.LOGGED_OUT_BY_WHATSAPP)
    return _ended(cause, neonize.ConnectFailureReason.Name(event.Reason))


def temporary_ban(event: Any, now: datetime.datetime) -> frames_pb2.Ended:
    """Return the last frame of a process whose account is banned for a time, with the ban's end if it is known."""
    ended = _ended(Cause.TEMPORARILY_BANNED, neonize.TemporaryBan.TempBanReason.Name(event.Code))
    if (end := ban_end(event.Expire, now)) is not None:
        ended.until.CopyFrom(end)
    return ended


def connect_failure(event: Any) -> frames_pb2.Ended:
    """Return the last frame of a process after a login failure that the library does not retry."""
    cause = _REFUSALS.get(event.Reason, Cause.CONNECTION_REFUSED)
    return _ended(cause, f"{neonize.ConnectFailureReason.Name(event.Reason)} {event.Message}".strip())


def _ended(cause: Cause, detail: str = "") -> frames_pb2.Ended:
    return frames_pb2.Ended(cause=cause.name, detail=detail)
