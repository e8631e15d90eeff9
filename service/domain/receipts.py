"""What receipts say of messages that this session sent."""

from collections.abc import Mapping, Sequence

from service.domain.events import NewEvent
from service.domain.observations import Happening
from service.domain.records import TOLD_BY_RECEIPTS, MessageState


def told_by(events: Sequence[NewEvent]) -> Mapping[MessageState, Sequence[str]]:
    """How far which messages came (WhatsApp's ids, each once), by all receipts among these events together."""
    told: dict[MessageState, dict[str, None]] = {}
    for event in events:
        if isinstance(event.payload, Happening) and (delivered := event.payload.delivered) is not None:
            told.setdefault(TOLD_BY_RECEIPTS[delivered.kind], {}).update(dict.fromkeys(delivered.message_ids))
    return {state: list(message_ids) for state, message_ids in told.items()}
