"""Events as zap.v1 messages: for consumers whole, for the log their payload alone."""

from google.protobuf.json_format import MessageToJson

from service.domain.events import Event, PairingProgress, Payload, StateChanged
from service.domain.observations import InboundEvent
from service.protocol.scalars import timestamp
from service.protocol.sessions import outcome_number, reason_message, state_number
from zap.v1 import event_pb2 as pb
from zap.v1 import session_pb2


def event_message(event: Event, resume_token: str = "") -> pb.Event:
    """An event as consumers get it; `resume_token` is where one that has seen it resumes.

    A payload that only a later release knows stays in it, among the fields that this one does not know.
    """
    message = _with_payload(event.payload)
    message.id = str(event.id)
    message.session_id = event.session_id
    message.sequence = event.sequence
    message.resume_token = resume_token
    message.time.FromDatetime(event.time)
    return message


def to_json(event: Event, resume_token: str = "") -> str:
    """An event as it is published on Redis: one line of protobuf JSON."""
    return MessageToJson(event_message(event, resume_token), indent=None)


def encode_payload(payload: Payload) -> tuple[str, bytes]:
    """A payload for the log: its type's bare word, and a serialised zap.v1.Event of type and payload alone."""
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
    # `from` is a keyword, so it cannot be given to the constructor by name.
    setattr(changed, "from", state_number(payload.before))
    return changed


def _pairing(payload: PairingProgress) -> pb.PairingProgress:
    return pb.PairingProgress(
        qr_expire_time=timestamp(payload.expire_time),
        qr_position=payload.position,
        outcome=outcome_number(payload.outcome) if payload.outcome else session_pb2.PAIRING_OUTCOME_UNSPECIFIED,
        reason=reason_message(payload.reason),
    )
