"""Receipts that came for messages nobody knew yet.

A recipient's device can be quicker than the transaction that writes down that a message is sent. The owner remembers
what a receipt said *before* it looks for the message; whoever settles the message looks here *afterwards*. So one of
the two finds the other, in whichever order they come.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from service.domain.records import MessageState

LIMIT, KEEP = 1000, 300.0
"""How many, and for how many seconds. Most of them are for messages that were sent from other devices, or repeat what
is known, and are never asked for."""


class EarlyReceipts:
    """The last receipts of one session whose message was not found, by WhatsApp's id of the message."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: OrderedDict[str, tuple[MessageState, float]] = OrderedDict()
        """Oldest first."""

    def remember(self, message_ids: Sequence[str], state: MessageState) -> None:
        """Before the messages are looked for."""
        now = self._clock()
        for message_id in message_ids:
            before = self._states.pop(message_id, None)
            was_read = before is not None and before[0] is MessageState.READ
            self._states[message_id] = (MessageState.READ if was_read else state, now)
        while self._states and (len(self._states) > LIMIT or self._oldest < now - KEEP):
            self._states.popitem(last=False)

    def found(self, message_ids: Sequence[str]) -> None:
        """These messages know by now."""
        for message_id in message_ids:
            self._states.pop(message_id, None)

    def pop(self, message_id: str) -> MessageState | None:
        """What a receipt said of this message, once."""
        state, _ = self._states.pop(message_id, (None, 0.0))
        return state

    @property
    def _oldest(self) -> float:
        return next(iter(self._states.values()))[1]
