"""Live events and hints on a real Valkey, which may go away, forget and say nonsense."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisAway
from structlog.testing import capture_logs

from service.bus import redis as bus_module
from service.bus.backlog import BATCH_EVENTS, MOST_EVENTS
from service.bus.hub import WORK_TOPIC, WakeupHub
from service.bus.redis import RedisBus
from service.domain.events import Event, StateChanged
from service.domain.session import State
from service.protocol.events import to_json
from tests.eventually import eventually

PATIENCE = 5.0


def event(number: int) -> Event:
    changed = StateChanged(State.CONNECTING, State.CONNECTED, "")
    return Event(number, "anna", number, datetime.now(UTC), changed)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def channel(redis: Redis) -> AsyncIterator[PubSub]:
    async with redis.pubsub() as subscribed:
        await subscribed.subscribe("zap:events:anna")
        await subscribed.get_message(timeout=PATIENCE)
        yield subscribed


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[RedisBus]:
    made = RedisBus(redis_url, WakeupHub(), to_json)
    made.start()
    yield made
    await made.close()


async def heard(channel: PubSub) -> bytes:
    message = await channel.get_message(timeout=PATIENCE)
    assert message is not None
    data: bytes = message["data"]
    return data


async def test_a_hint_reaches_another_node_even_after_nonsense(redis_url: str, redis: Redis, bus: RedisBus) -> None:
    hub = WakeupHub()
    other = RedisBus(redis_url, hub, to_json)
    other.start()
    try:
        async with asyncio.timeout(PATIENCE):
            while (await redis.pubsub_numsub("zap:wakeups"))[0][1] < 2:
                await asyncio.sleep(0.01)
        with hub.listen("anna") as hints:
            await redis.publish("zap:wakeups", b"\xff\xfe no text")
            bus.wake("anna")
            async with asyncio.timeout(PATIENCE):
                await hints.wait(2 * PATIENCE)
    finally:
        await other.close()


class Counting(WakeupHub):
    """Counts the hints that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.woken: list[str] = []

    def wake(self, session_id: str) -> None:
        self.woken.append(session_id)
        super().wake(session_id)


async def test_hints_reach_the_other_node_once_and_do_not_come_back(redis_url: str, redis: Redis) -> None:
    ours, theirs = Counting(), Counting()
    buses = [RedisBus(redis_url, hub, to_json) for hub in (ours, theirs)]
    for bus in buses:
        bus.start()
    try:
        async with asyncio.timeout(PATIENCE):
            while (await redis.pubsub_numsub("zap:wakeups"))[0][1] < 2:
                await asyncio.sleep(0.01)
            buses[0].wake("anna")
            buses[0].notify_work()
            await eventually(lambda: len(theirs.woken) >= 2)
            # Behind the others on the same channel: had they come back, they would have by now.
            buses[1].wake("berta")
            await eventually(lambda: "berta" in ours.woken)
    finally:
        for bus in buses:
            await bus.close()
    assert ours.woken == ["anna", WORK_TOPIC, "berta"]
    assert theirs.woken == ["anna", WORK_TOPIC, "berta"]


async def test_events_are_published_in_order_as_json(channel: PubSub, bus: RedisBus) -> None:
    bus.publish([event(number) for number in range(1, 4)])
    assert [b'"sequence": "%d"' % number in await heard(channel) for number in range(1, 4)] == [True] * 3


async def test_many_events_at_once_need_few_round_trips(
    channel: PubSub, bus: RedisBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips = 0
    pipeline = bus._redis.pipeline

    def counted(*, transaction: bool) -> object:
        nonlocal trips
        trips += 1
        return pipeline(transaction=transaction)

    monkeypatch.setattr(bus._redis, "pipeline", counted)
    for number in range(1, 3 * BATCH_EVENTS + 1):
        bus.publish([event(number)])
    sequences = [json.loads(await heard(channel))["sequence"] for _ in range(3 * BATCH_EVENTS)]
    assert sequences == [str(number) for number in range(1, 3 * BATCH_EVENTS + 1)]
    # One before each batch, for the hint that there is something.
    assert trips == 3 + 3


async def test_events_that_come_one_after_the_other_share_round_trips(
    channel: PubSub, bus: RedisBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    send = bus._send

    async def count(messages: Iterable[tuple[str, str]]) -> None:
        batches.append(list(messages))
        await send(batches[-1])

    monkeypatch.setattr(bus_module, "GATHER_S", PATIENCE)
    monkeypatch.setattr(bus, "_send", count)
    bus.publish([event(1)])
    assert b'"sequence": "1"' in await heard(channel)
    for number in range(2, BATCH_EVENTS + 2):
        bus.publish([event(number)])
        await asyncio.sleep(0)
    assert [json.loads(await heard(channel))["sequence"] for _ in range(BATCH_EVENTS)] == [
        str(number) for number in range(2, BATCH_EVENTS + 2)
    ]
    assert [len(batch) for batch in batches] == [1, 1, 1, BATCH_EVENTS]


async def test_a_hint_is_on_its_way_before_events_are_encoded(
    channel: PubSub, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def encode(told: Event) -> str:
        done.append("encoded")
        return to_json(told)

    bus = RedisBus(redis_url, WakeupHub(), encode)
    send = bus._send

    async def note(messages: Iterable[tuple[str, str]]) -> None:
        await send(messages)
        done.append("sent")

    monkeypatch.setattr(bus, "_send", note)
    bus.publish([event(1), event(2)])
    bus.start()
    try:
        for _ in range(2):
            await heard(channel)
        await eventually(lambda: len(done) >= 4, timeout=PATIENCE)
    finally:
        await bus.close()
    assert done == ["sent", "encoded", "encoded", "sent"]


async def test_an_outage_drops_the_oldest_events_and_no_event_for_a_hint(
    channel: PubSub, bus: RedisBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_away = True
    pipeline = bus._redis.pipeline

    def sometimes(*, transaction: bool) -> object:
        if is_away:
            raise RedisAway("away")
        return pipeline(transaction=transaction)

    monkeypatch.setattr(bus_module, "RECONNECT_INTERVAL_S", 0.01)
    monkeypatch.setattr(bus._redis, "pipeline", sometimes)
    for number in range(1, MOST_EVENTS + 3):
        bus.publish([event(number)])
        bus.wake("anna")
    await asyncio.sleep(0.05)
    assert bus.dropped == 2, "of the events; hints about one session are one"
    is_away = False
    assert b'"sequence": "3"' in await heard(channel)


async def test_a_bus_with_a_long_queue_closes_all_the_same(redis_url: str) -> None:
    for delay in (0.01, 0.02, 0.03):
        bus = RedisBus(redis_url, WakeupHub(), to_json)
        bus.start()
        await asyncio.sleep(0.05)
        bus.publish([event(number) for number in range(MOST_EVENTS)])
        await asyncio.sleep(delay)
        closing = asyncio.create_task(bus.close())
        await asyncio.wait((closing,), timeout=PATIENCE)
        assert closing.done()


async def test_a_redis_that_is_not_there_at_the_start_is_named_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "RECONNECT_INTERVAL_S", 0.01)
    bus = RedisBus("redis://127.0.0.1:1", WakeupHub(), to_json)
    bus.start()
    await asyncio.sleep(0.3)
    await bus.close()
    assert capsys.readouterr().out.count("REDIS_URL") == 1


async def test_an_event_that_cannot_be_encoded_is_left_out_and_counted(redis_url: str, channel: PubSub) -> None:
    def encode(one: Event) -> str:
        if one.sequence == 2:
            raise ValueError("a timestamp beyond the year 9999")
        return to_json(one)

    bus = RedisBus(redis_url, WakeupHub(), encode)
    bus.start()
    with capture_logs() as lines:
        bus.publish([event(1), event(2), event(3)])
        assert [json.loads(await heard(channel))["sequence"] for _ in range(2)] == ["1", "3"]
    await bus.close()
    assert bus.dropped == 1
    (said,) = [line for line in lines if line["log_level"] == "error"]
    assert (said["session_id"], said["sequence"]) == ("anna", 2)
