"""People who write to accounts in every way that WhatsApp has, at a steady pace, and a note of each message."""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from simulator.control import SimulatorControl
from tests.e2e.pairing_helpers import new_phone

RATE = 20.0
"""Messages per second to each session."""


class Kind(StrEnum):
    """How a message reaches a linked device."""

    TEXT = "text"
    """From the friend: in a conversation that the account has answered (msg), if it has."""
    FIRST_TEXT = "first text"
    """From a stranger, who begins the conversation anew each time (pkmsg)."""
    EDIT = "edit"
    """Of the friend's last text."""
    FROM_OWN_PHONE = "text from the account's own phone"
    GARBLED = "garbled text"
    """Cannot be decrypted, and is sent again when the device has asked for it."""
    GROUP_TEXT = "text to the group"
    """With the sender key that the devices have (skmsg)."""
    FIRST_GROUP_TEXT = "first text to the group"
    """With a new sender key (pkmsg and skmsg)."""


PERSONAL = (
    *(Kind.TEXT, Kind.FIRST_TEXT, Kind.TEXT, Kind.EDIT),
    *(Kind.FROM_OWN_PHONE, Kind.TEXT, Kind.GARBLED),
)
"""To each account, again and again in this order."""
IN_GROUP = (Kind.FIRST_GROUP_TEXT, *(Kind.GROUP_TEXT,) * 4)
"""To the group of all accounts, again and again in this order."""


@dataclass(frozen=True)
class People:
    """Who writes, by phone number, and the group of all accounts."""

    friend: str
    stranger: str
    garbler: str
    group_writer: str
    group: str


async def gather_people(control: SimulatorControl, friend: str, phones: Sequence[str]) -> People:
    """Make the people who write to these phones, and their group."""
    stranger, garbler, group_writer, member = [
        await new_phone(control, name) for name in ("Stranger", "Garbler", "Group writer", "Group member")
    ]
    group = await control.create_group(group_writer, "All", [*phones, friend, member])
    return People(friend, stranger, garbler, group_writer, group.jid)


@dataclass(frozen=True)
class Written:
    """A message that WhatsApp has taken; `at` in Unix seconds, before it was written."""

    message_id: str
    text: str
    kind: Kind
    writer: str
    chat: str
    """The phone or the group that it was written to."""
    readers: tuple[str, ...]
    """The sessions that it is for."""
    at: float

    @property
    def conversation(self) -> tuple[str, str]:
        """Messages of one conversation have an order."""
        return self.writer, self.chat

    @property
    def has_order(self) -> bool:
        """Return whether it must come before what was written after it; one that is sent again comes late."""
        return self.kind is not Kind.GARBLED


class Traffic:
    """`async with Traffic(control, people, phones) as traffic:` has people write until the block ends."""

    def __init__(
        self,
        control: SimulatorControl,
        people: People,
        phones: Mapping[str, str],
        rate: float = RATE,
        *,
        personal: Sequence[Kind] = PERSONAL,
        in_group: Sequence[Kind] = IN_GROUP,
    ) -> None:
        """`phones`: of each session. `rate`: messages a second to each account; half as many to the group."""
        self._control = control
        self._people = people
        self._phones = phones
        self._pause_s = 1 / rate
        self._kinds = {**dict.fromkeys(phones, personal), **({people.group: in_group} if in_group else {})}
        self._pause_of = {people.group: 2 / rate}
        self._editable: dict[str, str] = {}
        """By phone: the friend's last text to it."""
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = asyncio.Event()
        self._counts = dict.fromkeys(self._kinds, 0)
        self.written: list[Written] = []
        """In the order in which WhatsApp took them."""

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._write_to(name)) for name in self._kinds]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not cancelled: a message whose writing is cut short may have been written, and no note would say so.
        self._is_stopping.set()
        await asyncio.gather(*self._tasks)

    async def reach(self, count: int) -> None:
        """Wait until so many more were written to each account, and to the group."""
        wanted = {name: number + count for name, number in self._counts.items()}
        while any(self._counts[name] < number for name, number in wanted.items()):
            for task in self._tasks:
                if task.done():
                    await task
            await asyncio.sleep(0.01)

    async def _write_to(self, name: str) -> None:
        due = time.monotonic()
        for number, kind in enumerate(itertools.cycle(self._kinds[name])):
            if self._is_stopping.is_set():
                return
            self.written.append(await self._write(name, kind, number))
            self._counts[name] += 1
            due = max(due + self._pause_of.get(name, self._pause_s), time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _write(self, name: str, kind: Kind, number: int) -> Written:
        at, text = time.time(), f"{name} {number}: {kind}"
        is_for_all = name == self._people.group
        to = name if is_for_all else self._phones[name]
        writer, message_id = await self._send(kind, to, text)
        chat = self._people.friend if kind is Kind.FROM_OWN_PHONE else to
        return Written(message_id, text, kind, writer, chat, tuple(self._phones) if is_for_all else (name,), at)

    async def _send(self, kind: Kind, to: str, text: str) -> tuple[str, str]:
        """Return who wrote it, and its id."""
        people, write = self._people, self._control.write
        match kind:
            case Kind.TEXT:
                self._editable[to] = message_id = await write(people.friend, to, text)
                return people.friend, message_id
            case Kind.EDIT:
                return people.friend, await self._control.edit(people.friend, self._editable[to], text)
            case Kind.FIRST_TEXT:
                return people.stranger, await write(people.stranger, to, text, begin_anew=True)
            case Kind.FROM_OWN_PHONE:
                return to, await write(to, people.friend, text)
            case Kind.GARBLED:
                return people.garbler, await write(people.garbler, to, text, is_garbled=True)
            case Kind.GROUP_TEXT | Kind.FIRST_GROUP_TEXT:
                is_first = kind is Kind.FIRST_GROUP_TEXT
                return people.group_writer, await write(people.group_writer, to, text, begin_anew=is_first)
