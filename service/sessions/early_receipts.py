"""Receipts that came for messages nobody knew yet.

A recipient's device can be quicker than the transaction that writes down that a message is sent. The owner remembers
what a receipt said *before* it looks for the message; whoever settles the message looks here *afterwards*. So one of
the two finds the other, in whichever order they come.
"""

from collections import OrderedDict
from collections.abc import Sequence

from service.domain.records import MessageState

LIMIT = 1000
"""Most of them are for messages that were sent from other devices, and are never asked for."""


class EarlyReceipts:
    """The last receipts of one session whose message was not found, by WhatsApp's id of the message."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, MessageState] = OrderedDict()

    def remember(self, message_ids: Sequence[str], state: MessageState) -> None:
        """Before the messages are looked for."""
        for message_id in message_ids:
            if self._states.get(message_id) is not MessageState.READ:
                self._states[message_id] = state
        while len(self._states) > LIMIT:
            self._states.popitem(last=False)

    def found(self, message_ids: Sequence[str]) -> None:
        """These messages know by now."""
        for message_id in message_ids:
            self._states.pop(message_id, None)

    def pop(self, message_id: str) -> MessageState | None:
        """What a receipt said of this message, once."""
        return self._states.pop(message_id, None)
