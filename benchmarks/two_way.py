"""Measure what happens when both sides of conversations write at the same time: `python -m benchmarks.two_way`.

One session, whose process is not the one that paired, and 8 friends. Each friend writes to the session at a steady
rate, `--inbound` messages a second in all. 8 callers send through the node, each to one friend, one text after the
other without pause, `--sends` in all. With `--friends 1` all of it is one conversation, which makes a collision much
likelier. A simulated WhatsApp; embedded Postgres and Valkey, fsync off.

A message that cannot be decrypted is asked for again and comes late, in both directions: these are counted. Exits with
1 if a message is missing or there twice.
"""

import argparse
import asyncio
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from benchmarks.stage import Deployment, deployment
from simulator.views import InboxView
from tests.e2e.pairing_helpers import new_phone
from tests.event_log import read_messages
from tests.judgement import judge
from tests.traffic import Kind, Written
from zap.v1 import message_pb2

SESSION = "shop-0"
CALLERS = 8
QUIET_S = 3.0
"""For how long nothing changes once all is done."""
PATIENCE_S = 15.0
"""For how long nothing changes before a message that is not there is called missing."""
POLL_S = 0.5
UNREADABLE = "SELECT count(*) FROM zap.event WHERE type = 'MESSAGE_UNREADABLE'"


@dataclass(frozen=True)
class Figures:
    """Describe what has become of the messages of both sides."""

    queue: int
    """Stanzas that the device has not confirmed."""
    lost: int
    """Inbound messages that are not in the log."""
    twice: int
    disordered: int
    asked_again: int
    """Inbound messages that the device asked for again."""
    retry_receipts: int
    unreadable_events: int
    unreadable_at_first: int
    """Sent texts that the friend's phone had to ask for again."""
    never_read: int
    """Sent texts that the friend's phone has not read."""
    read_twice: int

    @property
    def is_complete(self) -> bool:
        """Return whether every message arrived, and none is under way."""
        return not (self.queue or self.lost or self.never_read)

    @property
    def is_good(self) -> bool:
        """Return whether every message arrived once."""
        return not (self.lost or self.twice or self.never_read or self.read_twice)


class TwoWay:
    """Write to the session and send from it, and note what was written and sent."""

    def __init__(self, there: Deployment, friends: list[str]) -> None:
        self._there = there
        self._friends = friends
        self.written: list[Written] = []
        self.sent: set[str] = set()
        """The ids of texts that WhatsApp has acknowledged."""
        self.failed: Counter[str] = Counter()
        """Sends that were not acknowledged, by what the node said."""

    async def introduce(self) -> None:
        """Send the first text to each friend, so that the conversations are established."""
        for friend in self._friends:
            await self._send(friend, "introduction")
            await self._there.simulator.wait_for_inbox(friend, "introduction")
        self.sent.clear()

    async def run(self, sends: int, inbound: float) -> float:
        """Have both sides write until all is sent; return how many seconds it took."""
        numbers = iter(range(sends))
        began = time.monotonic()
        is_over = asyncio.Event()
        writing = [
            asyncio.create_task(self._write(friend, began + place / inbound, len(self._friends) / inbound, is_over))
            for place, friend in enumerate(self._friends)
        ]
        callers = itertools.islice(itertools.cycle(self._friends), CALLERS)
        await asyncio.gather(*(self._call(friend, numbers) for friend in callers))
        took = time.monotonic() - began
        # Not cancelled: a message whose writing is cut short may have been written, and no note would say so.
        is_over.set()
        await asyncio.gather(*writing)
        return took

    async def settle(self) -> Figures:
        """Wait until nothing changes; return the last figures."""
        before, changed_at = await self._figures(), time.monotonic()
        while time.monotonic() < changed_at + (QUIET_S if before.is_complete else PATIENCE_S):
            await asyncio.sleep(POLL_S)
            if (now := await self._figures()) != before:
                before, changed_at = now, time.monotonic()
        return before

    async def _write(self, friend: str, due: float, pause_s: float, is_over: asyncio.Event) -> None:
        phone = self._there.phones[SESSION]
        for number in itertools.count():
            await asyncio.sleep(due - time.monotonic())
            if is_over.is_set():
                return
            at, text = time.time(), f"{friend} writes {number}"
            message_id = await self._there.simulator.write(friend, phone, text)
            self.written.append(Written(message_id, text, Kind.TEXT, friend, phone, (SESSION,), at))
            due += pause_s

    async def _call(self, friend: str, numbers: Iterator[int]) -> None:
        for number in numbers:
            await self._send(friend, str(number))

    async def _send(self, friend: str, what: str) -> None:
        try:
            message = await self._there.node.send(SESSION, f"+{friend}", what, f"{friend}-{what}")
        except grpc.aio.AioRpcError as error:
            self.failed[error.code().name] += 1
            return
        if message.state in {message_pb2.Message.STATE_FAILED, message_pb2.Message.STATE_OUTCOME_UNKNOWN}:
            self.failed[message_pb2.Message.State.Name(message.state)] += 1
        else:
            self.sent.add(message.message_id)

    async def _figures(self) -> Figures:
        simulator = self._there.simulator
        device = await simulator.device(self._there.jids[SESSION])
        log = judge(self.written, await read_messages(self._there.sql))
        receipts = [one for friend in self._friends for one in await simulator.sent(friend)]
        read: dict[str, InboxView] = {one.id: one for friend in self._friends for one in await simulator.inbox(friend)}
        missed = {one.id for friend in self._friends for one in await simulator.unreadable(friend)}
        arrived = [read[message_id] for message_id in self.sent if message_id in read]
        return Figures(
            queue=device.queue,
            lost=len(log.lost),
            twice=len(log.twice),
            disordered=len(log.disordered),
            asked_again=sum(any(receipt.type == "retry" for receipt in one.receipts) for one in receipts),
            retry_receipts=device.messages.retry_receipted,
            unreadable_events=await self._there.sql.fetchval(UNREADABLE),
            unreadable_at_first=sum(one.retries > 0 for one in arrived) + len(missed & self.sent),
            never_read=len(self.sent) - len(arrived),
            read_twice=sum(one.times > 1 for one in arrived),
        )


async def main(sends: int, inbound: float, friends: int) -> int:
    """Write the figures; return 1 if a message is missing or there twice."""
    async with deployment(restored=True) as there:
        traffic = TwoWay(there, [await new_phone(there.simulator, f"Friend {number}") for number in range(friends)])
        await traffic.introduce()
        took = await traffic.run(sends, inbound)
        figures = await traffic.settle()
    failed = ", ".join(f"{count} {what}" for what, count in traffic.failed.items()) or "0"
    sys.stdout.write(
        f"inbound: {len(traffic.written)} written in {took:.1f} s ({len(traffic.written) / took:.1f} a second);"
        f" {figures.asked_again} asked for again ({figures.retry_receipts} retry receipts,"
        f" {figures.unreadable_events} MESSAGE_UNREADABLE), {figures.disordered} out of order;"
        f" {figures.lost} missing, {figures.twice} twice; {figures.queue} stanzas not confirmed\n"
        f"sends: {len(traffic.sent)} acknowledged ({len(traffic.sent) / took:.1f} a second), failed: {failed};"
        f" {figures.unreadable_at_first} not readable at first; {figures.never_read} missing,"
        f" {figures.read_twice} twice\n"
    )
    return int(not figures.is_good)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_way", description="Both sides write at once.")
    parser.add_argument("--sends", type=int, default=1000)
    parser.add_argument("--inbound", type=float, default=60.0, help="messages a second, of all friends")
    parser.add_argument("--friends", type=int, default=CALLERS, choices=range(1, CALLERS + 1))
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.sends, given.inbound, given.friends)))
