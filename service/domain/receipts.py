"""Derive updates of sent messages from the receipts among events."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.events import NewEvent
from service.domain.observations import DeliveryReport, InboundEvent
from service.domain.records import RECEIPT_STATES, MessageState


@dataclass(frozen=True)
class DeviceReceipt:
    """Holds what one device reports of one message."""

    message_id: str
    kind: str
    """As in DeliveryReport."""
    device: str
    time: datetime


def message_updates(events: Sequence[NewEvent]) -> Mapping[MessageState, Sequence[str]]:
    """Return the message ids (WhatsApp's, each once) by the state that the receipts among these events report."""
    updates: dict[MessageState, dict[str, None]] = {}
    for _, delivered in _receipts(events):
        if (state := RECEIPT_STATES.get(delivered.kind)) is not None:
            updates.setdefault(state, {}).update(dict.fromkeys(delivered.message_ids))
    return {state: list(message_ids) for state, message_ids in updates.items()}


def device_receipts(events: Sequence[NewEvent]) -> Sequence[DeviceReceipt]:
    """Return the receipts among these events, one entry per message and device address.

    A confirmation has an entry for each address of its device, which may have requested the message under either one.
    """
    return [
        DeviceReceipt(message_id, delivered.kind, address, event.time)
        for event, delivered in _receipts(events)
        for address in (delivered.device if delivered.kind in RECEIPT_STATES else delivered.device[:1])
        for message_id in delivered.message_ids
    ]


def _receipts(events: Sequence[NewEvent]) -> Iterator[tuple[NewEvent, DeliveryReport]]:
    for event in events:
        if isinstance(event.payload, InboundEvent) and event.payload.delivered is not None:
            yield event, event.payload.delivered
