"""Builds pieces of history as phones send them to newly linked devices, with only the fields that clients require."""

# ruff: noqa: RUF009  (number() and repeated() make dataclass fields; they are not values)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.schemas import Content, MessageKey
from simulator.wire_format import Record, number, repeated

INITIAL_BOOTSTRAP, INITIAL_STATUS, FULL, RECENT, PUSH_NAMES = range(5)


@dataclass
class PastMessage(Record):
    key: MessageKey | None = number(1)
    content: Content | None = number(2)
    timestamp: int | None = number(3)


@dataclass
class Entry(Record):
    message: PastMessage | None = number(1)


@dataclass
class Chat(Record):
    id: str | None = number(1)
    messages: list[Entry] = repeated(2)


@dataclass
class PushName(Record):
    id: str | None = number(1)
    name: str | None = number(2)


@dataclass
class History(Record):
    kind: int | None = number(1)
    chats: list[Chat] = repeated(2)
    statuses: list[PastMessage] = repeated(3)
    chunk: int | None = number(5)
    progress: int | None = number(6)
    push_names: list[PushName] = repeated(7)


def chat(jid: str, times: Sequence[int], text: str = "once upon a time") -> Chat:
    """Return a chat with a text for each of these times, in seconds since 1970."""
    messages = [
        PastMessage(MessageKey(chat=jid, id=f"3EB0{index:06}"), Content(conversation=text), seconds)
        for index, seconds in enumerate(times)
    ]
    return Chat(jid, [Entry(message) for message in messages])
