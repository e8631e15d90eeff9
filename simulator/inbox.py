"""Holds the messages that reached a phone: those that it shows, and those that it could not read."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

MOST_RETRIES = 5
_MOST_MESSAGES = 20_000

#: A message's author (phone number) and its id.
MessageName = tuple[str, str]


@dataclass
class InboxMessage:
    """A message as the phone shows it."""

    id: str
    sender: str  #: phone number
    sender_device: int
    to: str  #: a group, or a phone number; differs from the phone's own for messages that its linked devices wrote
    text: str
    timestamp: float
    #: number of times this id was decrypted here: 1 unless the message was repeated
    times: int = 1
    #: number of retries until the phone could read it
    retries: int = 0
    #: number of edits by its author; the text is the newest
    edits: int = 0


@dataclass
class UnreadableMessage:
    """A message that the phone shows as "Waiting for this message"."""

    id: str
    sender: str  #: phone number
    sender_device: int
    chat: str  #: a group, or the author's phone number
    timestamp: float
    #: number of times the phone has asked for it again
    retries: int = 0
    #: whether the phone has stopped asking
    is_given_up: bool = False


class Inbox:
    """Messages by author and id, in order of arrival."""

    def __init__(self) -> None:
        self._messages: OrderedDict[MessageName, InboxMessage] = OrderedDict()
        self._unreadable: OrderedDict[MessageName, UnreadableMessage] = OrderedDict()
        #: messages that could not be read, each attempt counted
        self.failures = 0

    @property
    def messages(self) -> list[InboxMessage]:
        """The messages that were read, oldest first."""
        return list(self._messages.values())

    @property
    def unreadable(self) -> list[UnreadableMessage]:
        """The messages that have not been read, oldest first."""
        return list(self._unreadable.values())

    def find(self, message_id: str) -> InboxMessage | None:
        """Return the oldest message with this id; None if there is none."""
        return next((message for message in self._messages.values() if message.id == message_id), None)

    def keep(self, message: InboxMessage) -> None:
        """Store a message that was read, or count a repeated one."""
        name = (message.sender, message.id)
        known = self._messages.get(name)
        if known is not None:
            known.times += 1
            return
        self._messages[name] = message
        if len(self._messages) > _MOST_MESSAGES:
            self._messages.popitem(last=False)

    def edit(self, name: MessageName, text: str) -> None:
        """Replace the text of a message."""
        message = self._messages.get(name)
        if message is not None:
            message.text = text
            message.edits += 1

    def miss(self, message: UnreadableMessage, asked: int) -> int | None:
        """Record an unreadable message. Return the number of the retry to ask for, or None if the phone gives up.

        `asked` is the number of retries that the message answers, according to its stanza.
        """
        self.failures += 1
        missed = self._unreadable.setdefault((message.sender, message.id), message)
        if len(self._unreadable) > _MOST_MESSAGES:
            self._unreadable.popitem(last=False)
        if max(missed.retries, asked) >= MOST_RETRIES:
            missed.is_given_up = True
            return None
        missed.retries = max(missed.retries, asked) + 1
        return missed.retries

    def read(self, name: MessageName) -> int:
        """Record that a message could be read. Return how often the phone had asked for it."""
        missed = self._unreadable.pop(name, None)
        return missed.retries if missed is not None else 0


def unread(message_id: str, sender: str, device: int, chat: str) -> UnreadableMessage:
    """Return a message that could not be read now."""
    return UnreadableMessage(message_id, sender, device, chat, time.time())
