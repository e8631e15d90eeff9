"""Convert events to zap.v1 messages: whole for consumers, the payload alone for the log."""

from google.protobuf.json_format import MessageToJson

from service.domain.events import Event, PairingProgress, Payload, StateChanged
from service.domain.observations import InboundEvent
from service.protocol.sessions import outcome_number, reason_message, state_number
from service.protocol.timestamps import timestamp
from zap.v1 import event_pb2 as pb
from zap.v1 import session_pb2


def event_message(event: Event, resume_token: str = "") -> pb.Event:
    """Return an event as consumers get it. `resume_token` resumes after it.

    A payload that only a later release knows stays among the unknown fields.
    """
    message = _with_payload(event.payload)
    message.id = str(event.id)
    message.session_id = event.session_id
    message.sequence = event.sequence
    message.resume_token = resume_token
    message.time.FromDatetime(event.time)
    return message


def to_json(event: Event, resume_token: str = "") -> str:
    """Return an event as published on Redis: one line of protobuf JSON."""
    return MessageToJson(event_message(event, resume_token), indent=None)


def encode_payload(payload: Payload) -> tuple[str, bytes]:
    """Return a payload for the log: its type without prefix, and a serialised zap.v1.Event of type and payload only."""
    if isinstance(payload, InboundEvent):
        return payload.kind, payload.encoded
    return payload.kind, _with_payload(payload).SerializeToString(deterministic=True)


def _with_payload(payload: Payload) -> pb.Event:
    match payload:
        case StateChanged():
            return pb.Event(type=pb.Event.TYPE_STATE_CHANGED, state_changed=_state_changed(payload))
        case PairingProgress():
            return pb.Event(type=pb.Event.TYPE_PAIRING, pairing=_pairing(payload))
        case InboundEvent():
            return pb.Event.FromString(payload.encoded)


def _state_changed(payload: StateChanged) -> pb.StateChanged:
    changed = pb.StateChanged(to=state_number(payload.after), reason=reason_message(payload.reason))
    # `from` is a keyword of Python, so the constructor cannot take it by name.
    setattr(changed, "from", state_number(payload.before))
    return changed


def _pairing(payload: PairingProgress) -> pb.PairingProgress:
    return pb.PairingProgress(
        qr_expire_time=timestamp(payload.expire_time),
        qr_position=payload.position,
        outcome=outcome_number(payload.outcome) if payload.outcome else session_pb2.PAIRING_OUTCOME_UNSPECIFIED,
        reason=reason_message(payload.reason),
    )
