"""Remembers receipts that arrive before their message is recorded as sent.

A recipient's device can be faster than the transaction that records a message as sent. The owner remembers a receipt
before it searches for the message, and the sender looks here after it has recorded the outcome: one finds the other.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from service.domain.records import MessageState

MAX_RECEIPTS = 1000
"""Receipts that are kept. Most belong to messages from other devices or repeat a known state, and are never needed."""
KEEP_S = 300.0
"""Seconds for which a receipt is kept."""


class EarlyReceipts:
    """Holds the latest receipts of one session whose message was not found, by WhatsApp's message id."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: OrderedDict[str, tuple[MessageState, float]] = OrderedDict()
        """The state and when it was remembered, oldest first."""

    def remember(self, message_ids: Sequence[str], state: MessageState) -> None:
        """Keep the state that a receipt reports. Call this before searching for the messages."""
        now = self._clock()
        for message_id in message_ids:
            before = self._states.pop(message_id, None)
            was_read = before is not None and before[0] is MessageState.READ
            self._states[message_id] = (MessageState.READ if was_read else state, now)
        while self._states and (len(self._states) > MAX_RECEIPTS or self._oldest < now - KEEP_S):
            self._states.popitem(last=False)

    def forget(self, message_ids: Sequence[str]) -> None:
        """Drop the receipts of messages that were found."""
        for message_id in message_ids:
            self._states.pop(message_id, None)

    def pop(self, message_id: str) -> MessageState | None:
        """Remove and return the state that was remembered for a message."""
        state, _ = self._states.pop(message_id, (None, 0.0))
        return state

    @property
    def _oldest(self) -> float:
        return next(iter(self._states.values()))[1]
