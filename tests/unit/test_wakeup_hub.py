"""Hints: none is lost that came before the wait, and a cancellation is never lost to one."""

import asyncio
import time

import pytest

from service.bus.hub import Listener, WakeupHub


async def test_a_hint_that_came_before_the_wait_ends_it_at_once() -> None:
    hub = WakeupHub()
    with hub.listen("anna") as anna:
        hub.wake("anna")
        started = time.monotonic()
        await anna.wait(5)
        assert time.monotonic() - started < 1
    assert not hub._listeners


async def test_a_hint_about_a_session_is_for_those_who_wait_for_it_and_work_for_those_who_do_it() -> None:
    hub = WakeupHub()
    heard: list[str] = []

    async def hear(name: str, hints: Listener) -> None:
        await hints.wait(60)
        heard.append(name)

    with hub.listen("anna") as anna, hub.listen("berta") as berta, hub.listen_to_work() as work:
        hearing = [asyncio.create_task(hear(*each)) for each in (("anna", anna), ("berta", berta), ("work", work))]
        await asyncio.sleep(0)
        hub.wake("anna")
        await asyncio.sleep(0.02)
        assert heard == ["anna"]
        hub.notify_work()
        await asyncio.sleep(0.02)
        assert heard == ["anna", "work"]
        for task in hearing:
            task.cancel()
        await asyncio.wait(hearing)


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
        async with asyncio.timeout(5):
            await listener
