"""What comes in together is handed on together, and nothing is left behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from service.sessions.batches import batches


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def test_everything_comes_in_order_and_no_batch_is_larger_than_asked() -> None:
    found = [batch async for batch in batches(numbers(23), 5)]
    assert [number for batch in found for number in batch] == list(range(23))
    assert max(len(batch) for batch in found) <= 5


async def test_no_batch_goes_on_once_it_weighs_enough() -> None:
    found = [batch async for batch in batches(numbers(10), 5, weight=lambda number: number, full=6)]
    assert [number for batch in found for number in batch] == list(range(10))
    assert found[0] == [0, 1, 2, 3]
    assert all(sum(batch[:-1]) < 6 for batch in found)


async def test_what_came_before_an_error_is_handed_on_before_it() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise OSError("gone")

    async with aclosing(batches(source(), 5)) as found:
        assert await anext(found) == [1, 2]
        with pytest.raises(OSError, match="gone"):
            await anext(found)


async def test_a_consumer_that_leaves_while_much_waits_is_let_go() -> None:
    async def consume() -> None:
        async with aclosing(batches(numbers(1_000_000), 5)) as source:
            await anext(source)
            await asyncio.sleep(0.01)

    before = asyncio.all_tasks()
    consuming = asyncio.create_task(consume())
    await asyncio.wait((consuming,), timeout=2)
    assert asyncio.all_tasks() == before


async def test_a_cancellation_reaches_whoever_waits_for_the_next_batch() -> None:
    async def silent() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    async def consume() -> None:
        async with aclosing(batches(silent(), 5)) as source:
            await anext(source)

    consuming = asyncio.create_task(consume())
    await asyncio.sleep(0.01)
    consuming.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait((consuming,))
    assert consuming.cancelled()
