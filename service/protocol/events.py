"""Events as zap.v1 messages: for consumers whole, for the log their payload alone."""

from google.protobuf.json_format import MessageToJson

from service.domain.events import Event, PairingProgress, Payload, StateChanged
from service.domain.observations import MessageReceived, ReceiptReceived
from service.protocol.scalars import moment, timestamp
from service.protocol.sessions import outcome_number, outcome_of, reason_message, state_number, state_of
from zap.v1 import event_pb2 as pb
from zap.v1 import session_pb2

_TYPES = {
    StateChanged: pb.Event.TYPE_STATE_CHANGED,
    PairingProgress: pb.Event.TYPE_PAIRING,
    MessageReceived: pb.Event.TYPE_MESSAGE_RECEIVED,
    ReceiptReceived: pb.Event.TYPE_RECEIPT,
}


def event_message(event: Event, resume_token: str = "") -> pb.Event:
    """An event as consumers get it; `resume_token` is where one that has seen it resumes."""
    message = _with_payload(event.payload)
    message.id = str(event.id)
    message.session_id = event.session_id
    message.sequence = event.sequence
    message.resume_token = resume_token
    message.time.FromDatetime(event.time)
    message.type = _TYPES[type(event.payload)]
    return message


def event_of(message: pb.Event) -> Event:
    """The event of a message; the inverse of `event_message`."""
    return Event(
        id=int(message.id),
        session_id=message.session_id,
        sequence=message.sequence,
        time=moment(message.time),
        payload=_payload_of(message),
    )


def to_json(event: Event, resume_token: str = "") -> str:
    """An event as it is published on Redis: one line of protobuf JSON."""
    return MessageToJson(event_message(event, resume_token), indent=None)


def type_name(payload: Payload) -> str:
    """The bare word for a payload's type, as SQL and logs use it."""
    return pb.Event.Type.Name(_TYPES[type(payload)]).removeprefix("TYPE_")


def encode_payload(payload: Payload) -> tuple[str, bytes]:
    """A payload for the log: its type's bare word, and a serialised zap.v1.Event that holds nothing else."""
    return type_name(payload), _with_payload(payload).SerializeToString(deterministic=True)


def decode_payload(kind: str, data: bytes) -> Payload:
    """The inverse of `encode_payload`. Raises ValueError if the bytes do not hold a payload of this type."""
    payload = _payload_of(pb.Event.FromString(data))
    if type_name(payload) != kind:
        raise ValueError(f"the log holds a {type_name(payload)} under the name of a {kind}")
    return payload


def _with_payload(payload: Payload) -> pb.Event:
    match payload:
        case StateChanged():
            return pb.Event(state_changed=_state_changed(payload))
        case PairingProgress():
            return pb.Event(pairing=_pairing(payload))
        case MessageReceived():
            return pb.Event(message_received=_message_received(payload))
        case ReceiptReceived():
            return pb.Event(receipt=_receipt(payload))


def _payload_of(message: pb.Event) -> Payload:
    match message.WhichOneof("payload"):
        case "state_changed":
            return _state_changed_of(message.state_changed)
        case "pairing":
            return _pairing_of(message.pairing)
        case "message_received":
            return _message_received_of(message.message_received)
        case "receipt":
            return _receipt_of(message.receipt)
        case _:
            raise ValueError("an event without a payload that this release knows")


def _state_changed(payload: StateChanged) -> pb.StateChanged:
    changed = pb.StateChanged(to=state_number(payload.after), reason=reason_message(payload.reason))
    # `from` is a keyword, so it cannot be given to the constructor by name.
    setattr(changed, "from", state_number(payload.before))
    return changed


def _state_changed_of(message: pb.StateChanged) -> StateChanged:
    return StateChanged(
        before=state_of(getattr(message, "from")), after=state_of(message.to), reason=message.reason.code
    )


def _pairing(payload: PairingProgress) -> pb.PairingProgress:
    return pb.PairingProgress(
        qr_expire_time=timestamp(payload.expire_time),
        qr_position=payload.position,
        outcome=outcome_number(payload.outcome) if payload.outcome else session_pb2.PAIRING_OUTCOME_UNSPECIFIED,
        reason=reason_message(payload.reason),
    )


def _pairing_of(message: pb.PairingProgress) -> PairingProgress:
    return PairingProgress(
        expire_time=moment(message.qr_expire_time) if message.HasField("qr_expire_time") else None,
        position=message.qr_position,
        outcome=outcome_of(message.outcome) if message.outcome else None,
        reason=message.reason.code,
    )


def _message_received(payload: MessageReceived) -> pb.MessageReceived:
    return pb.MessageReceived(
        message_id=payload.message_id,
        chat=payload.chat,
        sender=payload.sender,
        sender_alternative=payload.sender_alternative,
        push_name=payload.push_name,
        from_me=payload.from_me,
        is_group=payload.is_group,
        text=payload.text,
        raw=payload.raw,
    )


def _message_received_of(message: pb.MessageReceived) -> MessageReceived:
    return MessageReceived(
        message_id=message.message_id,
        chat=message.chat,
        sender=message.sender,
        sender_alternative=message.sender_alternative,
        push_name=message.push_name,
        from_me=message.from_me,
        is_group=message.is_group,
        text=message.text,
        raw=message.raw,
    )


def _receipt(payload: ReceiptReceived) -> pb.Receipt:
    return pb.Receipt(
        message_ids=payload.message_ids,
        kind=pb.Receipt.Kind.Value(f"KIND_{payload.kind or 'UNSPECIFIED'}"),
        chat=payload.chat,
        sender=payload.sender,
    )


def _receipt_of(message: pb.Receipt) -> ReceiptReceived:
    kind = pb.Receipt.Kind.Name(message.kind).removeprefix("KIND_") if message.kind else ""
    return ReceiptReceived(message_ids=tuple(message.message_ids), kind=kind, chat=message.chat, sender=message.sender)
