"""What receipts say of messages that this session sent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.events import NewEvent
from service.domain.observations import Delivered, InboundEvent
from service.domain.records import RECEIPT_STATES, MessageState


@dataclass(frozen=True)
class DeviceReceipt:
    """What one device says of one message."""

    message_id: str
    kind: str
    """As in Delivered."""
    device: str
    time: datetime


def message_updates(events: Sequence[NewEvent]) -> Mapping[MessageState, Sequence[str]]:
    """How far which messages came (WhatsApp's ids, each once), by all receipts among these events together."""
    told: dict[MessageState, dict[str, None]] = {}
    for _, delivered in _receipts(events):
        if (state := RECEIPT_STATES.get(delivered.kind)) is not None:
            told.setdefault(state, {}).update(dict.fromkeys(delivered.message_ids))
    return {state: list(message_ids) for state, message_ids in told.items()}


def device_receipts(events: Sequence[NewEvent]) -> Sequence[DeviceReceipt]:
    """Return what the receipts among these events say, message by message.

    A device that confirms is named by each of its addresses: it may have asked for the message under either.
    """
    return [
        DeviceReceipt(message_id, delivered.kind, address, event.time)
        for event, delivered in _receipts(events)
        for address in (delivered.device if delivered.kind in RECEIPT_STATES else delivered.device[:1])
        for message_id in delivered.message_ids
    ]


def _receipts(events: Sequence[NewEvent]) -> Iterator[tuple[NewEvent, Delivered]]:
    for event in events:
        if isinstance(event.payload, InboundEvent) and event.payload.delivered is not None:
            yield event, event.payload.delivered
