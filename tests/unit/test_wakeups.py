"""Hints: none is lost that came before the wait, and a cancellation is never lost to one."""

import asyncio
import time

import pytest

from service.bus.wakeups import WakeupHub


async def test_a_hint_that_came_before_the_wait_ends_it_at_once() -> None:
    hub = WakeupHub()
    with hub.listen("anna") as anna, hub.listen("berta") as berta, hub.listen_all() as every:
        hub.wake("anna")
        started = time.monotonic()
        await anna.wait(5)
        await every.wait(5)
        assert time.monotonic() - started < 1
        await berta.wait(0.05)
    assert len(hub) == 0


async def test_a_cancellation_in_the_moment_of_a_hint_is_not_lost() -> None:
    """With asyncio.wait_for it was: a node that was told to stop went on waiting for hints for ever."""
    hub = WakeupHub()

    async def listen_for_ever() -> None:
        with hub.listen("anna") as hints:
            while True:
                await hints.wait(60)

    listener = asyncio.create_task(listen_for_ever())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    hub.wake("anna")
    await asyncio.sleep(0)
    listener.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(1):
            await listener
