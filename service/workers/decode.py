"""Decodes the frames of a session process into the domain's observations."""

import datetime
from collections.abc import Callable
from typing import Any

from service.domain import observations as domain
from service.domain.disconnect_policy import Cause
from service.domain.masking import cut
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2

#: Receipts for messages that this session sent.
_DELIVERY_KINDS = {
    event_pb2.Receipt.KIND_DELIVERED: "DELIVERED",
    event_pb2.Receipt.KIND_READ: "READ",
    event_pb2.Receipt.KIND_PLAYED: "PLAYED",
    event_pb2.Receipt.KIND_RETRY: "RETRY",
}


def decode_frame(frame: frames_pb2.Frame) -> domain.Observed | None:
    """Return what a frame reports; None if it is about the process and not about the session."""
    kind = frame.WhichOneof("body")
    decode = _DECODERS.get(kind or "")
    if decode is None:
        return None
    observation = decode(getattr(frame, kind or ""))
    return domain.Observed(observation, frame.time.ToDatetime(tzinfo=datetime.UTC), frame.number, frame.origin)


def decode_end(body: frames_pb2.Ended) -> domain.Ended:
    """Return the reported end of a process. A cause of another release counts as CLIENT_ERROR."""
    known = body.cause in Cause.__members__
    cause = Cause[body.cause] if known else Cause.CLIENT_ERROR
    detail = body.detail if known else f"{body.cause}: {body.detail}"
    until = body.until.ToDatetime(tzinfo=datetime.UTC) if body.HasField("until") else None
    return domain.Ended(cause, cut(detail), until)


def _inbound_event(body: event_pb2.Event) -> domain.InboundEvent:
    kind = event_pb2.Event.Type.Name(body.type).removeprefix("TYPE_")
    return domain.InboundEvent(kind, body.SerializeToString(), _delivery_of(body))


def _delivery_of(body: event_pb2.Event) -> domain.DeliveryReport | None:
    if body.HasField("resend_failed"):
        failed = body.resend_failed
        return domain.DeliveryReport((failed.message_id,), "RESEND_FAILED", (failed.device,))
    receipt = body.receipt
    kind = _DELIVERY_KINDS.get(receipt.kind)
    device = tuple(filter(None, (receipt.sender, receipt.sender_alternative)))
    return domain.DeliveryReport(tuple(receipt.message_ids), kind, device) if kind else None


_DECODERS: dict[str, Callable[[Any], domain.Observation]] = {
    "code_shown": lambda body: domain.CodeShown(body.text, body.position, body.lifetime.ToTimedelta()),
    "device_saved": lambda body: domain.DeviceSaved(body.jid, body.lid, body.platform),
    "connected": lambda body: domain.Connected(body.jid, body.lid, body.push_name),
    "disconnected": lambda _: domain.Disconnected(),
    "keep_alive_timeout": lambda _: domain.KeepAliveTimeout(),
    "keep_alive_restored": lambda _: domain.KeepAliveRestored(),
    "push_name": lambda body: domain.PushNameChanged(body.name),
    "event": _inbound_event,
}
