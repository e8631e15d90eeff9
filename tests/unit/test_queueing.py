"""What Status and List say of a session that waits for its turn, and what they read for it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from service.domain.records import Owner, Session
from service.domain.session import Condition, Credentials, Desired, State
from service.ports import NewSession, SessionStore
from service.protocol.sessions import session_message
from service.sessions.queueing import Queueing
from tests.fakes.core import NOW, FakeSessions

AWAY = Condition(Desired.ACTIVE, State.RECONNECTING, "NODE_STOPPED", Credentials.CONFIRMED)


class Store:
    """Sessions that are nobody's, in the order in which they are claimed."""

    def __init__(self, *order: str) -> None:
        self.order = order
        self.reads = 0

    async def queue(self) -> Sequence[str]:
        self.reads += 1
        await asyncio.sleep(0)
        return self.order


class Gate:
    """Ten starts a second, and nothing in the bucket but what the test says."""

    def __init__(self, ready: int = 0) -> None:
        self.rate = 10.0
        self._ready = ready

    def seconds_until_claim(self, before: int) -> float:
        return max(0.0, (before + 1 - self._ready) / self.rate)


async def session(session_id: str, condition: Condition = AWAY, turn_in: float | None = None) -> Session:
    made = await FakeSessions().create(NewSession(session_id, "", "", {}, "", ""))
    return replace(made, condition=condition, turn_in=turn_in)


async def tell(store: Store, *sessions: Session, gate: Gate | None = None) -> Sequence[Session]:
    return await Queueing(cast(SessionStore, store), gate or Gate()).tell(sessions)


def seconds_left(told: Session) -> float:
    assert told.condition.next_attempt is not None
    return (told.condition.next_attempt - datetime.now(UTC)).total_seconds()


async def test_one_that_is_nobodys_says_who_is_before_it_and_when_it_comes() -> None:
    store = Store(*(f"s{number}" for number in range(40)))
    told = await tell(store, *[await session(f"s{number}") for number in (0, 39)])
    assert [one.condition.reason for one in told] == ["WAITING_FOR_TURN"] * 2
    assert [one.condition.state for one in told] == [State.RECONNECTING] * 2
    assert [seconds_left(one) for one in told] == pytest.approx([0.1, 4.0], abs=0.1)
    assert session_message(told[1]).reason.message == (
        "The session waits for its turn to be started. Sessions are started at 10 a second; 39 are before this one."
    )
    assert store.reads == 1


async def test_one_that_waits_in_its_owner_says_what_the_owner_expects() -> None:
    store = Store()
    waiting = replace(await session("a", turn_in=2.5), owner=Owner("node", 3, NOW))
    (told,) = await tell(store, waiting)
    assert told.condition.reason == "WAITING_FOR_TURN"
    assert seconds_left(told) == pytest.approx(2.5, abs=0.1)
    assert "25 are before this one" in told.detail
    (overdue,) = await tell(store, replace(waiting, turn_in=-3.0))
    assert "0 are before this one" in overdue.detail
    assert seconds_left(overdue) == pytest.approx(0, abs=0.1)
    assert store.reads == 0


@pytest.mark.parametrize(
    "condition",
    [
        Condition(Desired.ACTIVE, State.CONNECTED, "", Credentials.CONFIRMED),
        Condition(Desired.INACTIVE, State.DISCONNECTED, "DEACTIVATED", Credentials.CONFIRMED),
        Condition(Desired.ACTIVE, State.SUSPENDED, "TEMPORARILY_BANNED", Credentials.CONFIRMED),
        Condition(Desired.ACTIVE, State.FAILED, "STREAM_REPLACED", Credentials.CONFIRMED),
    ],
)
async def test_nothing_is_read_for_one_that_does_not_wait(condition: Condition) -> None:
    store = Store("a")
    plain = await session("a", condition)
    owned = replace(await session("a"), owner=Owner("node", 3, NOW))
    assert list(await tell(store, plain, owned)) == [plain, owned]
    assert store.reads == 0


async def test_one_that_is_not_due_or_whose_turn_has_come_is_as_it_was() -> None:
    plain = await session("a")
    assert list(await tell(Store("b"), plain)) == [plain]
    assert list(await tell(Store("a"), plain, gate=Gate(ready=1))) == [plain]


async def test_the_order_is_read_once_for_all_who_ask() -> None:
    store = Store("a", "b")
    queueing = Queueing(cast(SessionStore, store), Gate())
    waiting = [await session("a")]
    await asyncio.gather(*(queueing.tell(waiting) for _ in range(50)))
    assert store.reads == 1
