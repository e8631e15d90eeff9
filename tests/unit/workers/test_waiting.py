"""What a session process has said is bounded by its bytes, whatever is done with it."""

import datetime

from service.domain.observations import Disconnected, InboundEvent, Observed
from service.workers.waiting import HIGH_BYTES, LOW_BYTES, Waiting

NOW = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
LASTING = Observed(InboundEvent("MESSAGE_RECEIVED", b""), NOW, number=1)
MOMENTARY = Observed(InboundEvent("PRESENCE_CHANGED", b""), NOW)


class Reading:
    """Whether the process is read from."""

    def __init__(self) -> None:
        self._changes = ["goes on"]
        self.waiting = Waiting(lambda: self._changes.append("held"), lambda: self._changes.append("goes on"))

    def goes_on(self) -> bool:
        return self._changes[-1] == "goes on"


async def test_reading_is_held_above_the_high_mark_and_goes_on_below_the_low_one() -> None:
    reading = Reading()
    batches = reading.waiting.batches()
    reading.waiting.add(LASTING, HIGH_BYTES - 10_000)
    assert reading.goes_on()
    assert await anext(batches) == [LASTING]
    # What is in hand takes memory still.
    reading.waiting.add(LASTING, LOW_BYTES)
    assert not reading.goes_on()
    assert await anext(batches) == [LASTING]
    assert not reading.goes_on()
    reading.waiting.add(LASTING, 0)
    await anext(batches)
    assert reading.goes_on()


async def test_replies_count_until_they_are_taken() -> None:
    reading = Reading()
    batches = reading.waiting.batches()
    for call_id in (1, 2):
        reading.waiting.hold_reply(call_id, HIGH_BYTES - LOW_BYTES)
    assert not reading.goes_on()
    reading.waiting.take_reply(1)
    assert not reading.goes_on()
    reading.waiting.take_reply(2)
    assert reading.goes_on()
    # Observations and replies count together, and a batch is no reply.
    reading.waiting.hold_reply(3, HIGH_BYTES)
    reading.waiting.add(LASTING, 10)
    assert not reading.goes_on()
    await anext(batches)
    reading.waiting.add(LASTING, 10)
    await anext(batches)
    assert not reading.goes_on()
    reading.waiting.take_reply(3)
    reading.waiting.take_reply(3)
    assert reading.goes_on()


async def test_many_small_ones_count_for_what_they_take() -> None:
    reading = Reading()
    for _ in range(HIGH_BYTES // 512 + 1):
        reading.waiting.add(Observed(Disconnected(), NOW), 10)
    assert not reading.goes_on()


async def test_what_is_of_the_moment_is_left_out_before_anything_is_held() -> None:
    reading = Reading()
    for _ in range(100):
        reading.waiting.add(MOMENTARY, 200_000)
    assert reading.goes_on()
    reading.waiting.add(LASTING, 10)
    batch = await anext(reading.waiting.batches())
    assert batch[-1] is LASTING
    assert len(batch) == LOW_BYTES // 200_000 + 2
