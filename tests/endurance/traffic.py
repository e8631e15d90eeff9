"""A crowd of sessions in one node, written to once a second each, for as long as it takes to see what grows."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import psutil

from tests.caller import State
from tests.e2e.pairing_helpers import new_phone, pair
from tests.endurance.memory import Memory, slope
from tests.endurance.stage import Stage, set_up
from tests.event_log import judge_log
from tests.scenarios.report import say
from tests.traffic import Kind, People, Traffic
from zap.v1 import session_pb2

SAMPLE_EVERY, LOOK_EVERY = 10.0, 1.0
WARM_UP = 0.5
"""Share of the time that says nothing of the slope: Go's heap takes some hundred messages to find its size.

What is left should be several times 300 s, the age at which asyncpg forgets a statement: until then a node grows by
2 %, and gives it back.
"""
WRITE_EVERY, SEND_EVERY = 1.0, 10.0
"""Seconds between two messages to each session, and from each."""
MOST_GROWTH, MOST_GROWTH_OF_ONE = 64.0, 256.0
"""KiB a minute in the mean of a kind, and of the one process that grows most: what a few minutes' look at a busy
allocator cannot tell from flat."""
SETTLE = 60.0
_SESSIONS = "session process"


@dataclass
class Account:
    """One session, and a friend who writes to it."""

    session_id: str
    friend: str
    traffic: Traffic
    """The friend's messages to it."""
    sent: set[str] = field(default_factory=set)
    """Ids of messages from it that WhatsApp has."""


@dataclass
class Seen:
    """What was measured."""

    times: list[float] = field(default_factory=list)
    private: dict[str, list[float]] = field(default_factory=dict)
    proportional: dict[str, list[float]] = field(default_factory=dict)
    anonymous: dict[str, list[float]] = field(default_factory=dict)
    of_each: dict[int, list[float]] = field(default_factory=dict)
    """The anonymous memory of each session process."""
    not_connected: Counter[str] = field(default_factory=Counter)
    looks: int = 0
    failures: list[str] = field(default_factory=list)


async def run(sessions: int, duration: float) -> list[str]:
    """So many sessions for so many seconds; what is wrong at the end."""
    async with set_up() as stage:
        began = time.monotonic()
        accounts = [await _pair(stage, number) for number in range(sessions)]
        say(f"{sessions} sessions paired in {time.monotonic() - began:.0f} s")
        seen = Seen()
        before = await _cpu(stage)
        began = time.monotonic()
        until = began + duration
        async with asyncio.TaskGroup() as tasks:
            for account in accounts:
                tasks.create_task(_write(account, until))
                tasks.create_task(_send(stage, account, until, seen))
            tasks.create_task(_look(stage, until, seen))
            tasks.create_task(_sample(stage, until, seen))
        took = time.monotonic() - began
        after = await _cpu(stage)
        wrong = await _settle(stage, accounts)
        say(f"{took:.0f} s; CPU: " + ", ".join(f"{who} {(after[who] - before[who]) / took:.1%}" for who in after))
        return [*wrong, *_judge(seen, duration / 60)]


async def _pair(stage: Stage, number: int) -> Account:
    phone = await new_phone(stage.simulator, f"Owner {number}")
    friend = await new_phone(stage.simulator, f"Friend {number}")
    await pair(stage.node, stage.simulator, f"crowd-{number}", phone)
    people = People(friend, stranger="", garbler="", group_writer="", group="")
    traffic = Traffic(
        stage.simulator,
        people,
        {f"crowd-{number}": phone},
        1 / WRITE_EVERY,
        personal=(Kind.TEXT,),
        in_group=(),
    )
    return Account(f"crowd-{number}", friend, traffic)


async def _write(account: Account, until: float) -> None:
    await asyncio.sleep(random.uniform(0, WRITE_EVERY))
    async with account.traffic:
        await asyncio.sleep(until - time.monotonic())


async def _send(stage: Stage, account: Account, until: float, seen: Seen) -> None:
    async for number in _ticks(SEND_EVERY, until):
        request_id = f"{account.session_id}-{number}"
        try:
            message = await stage.node.send(account.session_id, account.friend, f"Answer {number}", request_id)
        except grpc.aio.AioRpcError as error:
            seen.failures.append(f"{request_id}: {error.code()} {error.details()}")
        else:
            account.sent.add(message.message_id)


async def _look(stage: Stage, until: float, seen: Seen) -> None:
    async for _ in _ticks(LOOK_EVERY, until):
        seen.looks += 1
        try:
            answer = await stage.node.sessions.List(session_pb2.ListRequest(page_size=1000))
        except grpc.aio.AioRpcError as error:
            seen.failures.append(f"List: {error.code()} {error.details()}")
            continue
        for session in answer.sessions:
            if session.state != State.STATE_CONNECTED:
                seen.not_connected[f"{session.session_id} {State.Name(session.state)} {session.reason.code}"] += 1


async def _sample(stage: Stage, until: float, seen: Seen) -> None:
    async for _ in _ticks(SAMPLE_EVERY, until):
        seen.times.append(time.monotonic() / 60)
        for who, pids in (await _groups(stage)).items():
            memory = Memory.of(pids)
            seen.private.setdefault(who, []).append(memory.private / len(pids))
            seen.proportional.setdefault(who, []).append(memory.proportional / len(pids))
            seen.anonymous.setdefault(who, []).append(memory.anonymous / len(pids))
            if who == _SESSIONS:
                for pid in pids:
                    seen.of_each.setdefault(pid, []).append(Memory.of([pid]).anonymous)


async def _ticks(every: float, until: float) -> AsyncIterator[int]:
    """1, 2, 3, … at this interval, from a moment of chance on: a crowd does not speak in chorus."""
    due = time.monotonic() + random.uniform(0, every)
    number = 0
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        number += 1
        yield number
        due += every


async def _groups(stage: Stage) -> dict[str, list[int]]:
    """Process ids by what they are; what is said of several is the mean."""
    node, zygote, *sessions = (process.pid for process in stage.node.processes())
    backends = await stage.sql.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return {
        "node": [node],
        "zygote": [zygote],
        _SESSIONS: sessions,
        "backend": [row["pid"] for row in backends],
    }


async def _cpu(stage: Stage) -> dict[str, float]:
    """Seconds of CPU that each group has used, those of its dead not counted."""
    used = {}
    for who, pids in (await _groups(stage)).items():
        used[who] = 0.0
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                used[who] += times.user + times.system
    return used


async def _settle(stage: Stage, accounts: list[Account]) -> list[str]:
    """Wait until everything that was written has arrived; what is missing, there twice, or out of order."""
    written = [message for account in accounts for message in account.traffic.written]
    log = await judge_log(stage.sql, written, SETTLE, within=SETTLE)
    unheard = 0
    for account in accounts:
        unheard += len(account.sent - {message.id for message in await stage.simulator.inbox(account.friend)})
    published = Counter(
        event["messageReceived"]["messageId"] for event in stage.live.events if "messageReceived" in event
    )
    unpublished = len({message.message_id for message in written} - published.keys())
    sent = sum(len(account.sent) for account in accounts)
    say(
        f"written {len(written)}: lost {len(log.lost)}, twice {len(log.twice)}, out of order {len(log.disordered)},"
        f" not published {unpublished};"
        f" sent {sent}: not on the friend's phone {unheard}"
    )
    faults = {"not published": unpublished, "sent for nothing": unheard}
    return log.problems + [f"{count} {what}" for what, count in faults.items() if count]


def _judge(seen: Seen, minutes: float) -> list[str]:
    wrong = [f"{what}: {count} of {seen.looks} looks" for what, count in seen.not_connected.items()]
    wrong += seen.failures
    start = sum(moment < seen.times[0] + WARM_UP * minutes for moment in seen.times)
    for who, values in seen.anonymous.items():
        grows = slope(seen.times[start:], values[start:])
        say(
            f"{who}: anonymous {values[0]:.0f} → {values[start]:.0f} → {values[-1]:.0f} KiB, {grows:+.1f} KiB/min;"
            f" private {seen.private[who][0]:.0f} → {seen.private[who][-1]:.0f} KiB,"
            f" PSS {seen.proportional[who][0]:.0f} → {seen.proportional[who][-1]:.0f} KiB"
        )
        if grows > MOST_GROWTH:
            wrong.append(f"{who} grows by {grows:.0f} KiB a minute")
    # Who did not live through all of it is seen by the looks.
    lived = [values for values in seen.of_each.values() if len(values) == len(seen.times)]
    worst = max((slope(seen.times[start:], values[start:]) for values in lived), default=0.0)
    say(f"the {_SESSIONS} that grows most: {worst:+.1f} KiB/min")
    if worst > MOST_GROWTH_OF_ONE:
        wrong.append(f"one {_SESSIONS} grows by {worst:.0f} KiB a minute")
    say(f"{seen.looks} looks at all sessions, not connected: {dict(seen.not_connected) or 'never'}")
    return wrong
