"""Holds the messages that a phone wrote, with the receipts of other devices."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from simulator.letters import Letter

_MOST_MESSAGES = 20_000


@dataclass
class Receipt:
    """A device's receipt for a message that this phone wrote."""

    device: str
    type: str  #: "delivered", "inactive", "read", "retry", …
    timestamp: float


@dataclass
class SentMessage:
    """A message that this phone wrote, stored so that it can be sent again to a device that could not read it."""

    id: str
    to: str  #: a phone number or a group
    text: str  #: empty unless it is a text
    timestamp: float
    letter: Letter = field(repr=False)
    receipts: list[Receipt] = field(default_factory=list)


class Outbox:
    """Messages by id, oldest first."""

    def __init__(self) -> None:
        self._messages: OrderedDict[str, SentMessage] = OrderedDict()

    @property
    def messages(self) -> list[SentMessage]:
        """All messages that were written here."""
        return list(self._messages.values())

    def add(self, to: str, letter: Letter, text: str = "") -> SentMessage:
        """Store a message under a new id."""
        message = SentMessage(new_message_id(), to, text, time.time(), letter)
        self._messages[message.id] = message
        if len(self._messages) > _MOST_MESSAGES:
            self._messages.popitem(last=False)
        return message

    def find(self, message_id: str) -> SentMessage | None:
        """Return the message with this id; None if there is none."""
        return self._messages.get(message_id)


def new_message_id() -> str:
    """Return an id in the form that phones use."""
    return "3EB0" + secrets.token_hex(9).upper()
