"""The one way in which tests wait for what comes about by itself."""

import inspect
from asyncio import sleep
from collections.abc import Awaitable, Callable
from time import monotonic
from time import sleep as sleep_in_thread
from typing import Any, TypeVar, overload

# Bound here, so that a test may replace the clocks of asyncio and time.
T = TypeVar("T")

HANG_S = 60.0
"""Distinguishes a hang from a slow machine; no test asserts a duration with it."""


@overload
async def eventually(
    condition: Callable[[], Awaitable[T]], what: str = ..., timeout: float = ..., *, every: float = ...
) -> T: ...
@overload
async def eventually(condition: Callable[[], T], what: str = ..., timeout: float = ..., *, every: float = ...) -> T: ...
async def eventually(
    condition: Callable[[], Any], what: str = "the condition", timeout: float = HANG_S, *, every: float = 0.01
) -> Any:
    """Return the first true value of `condition`, a function or a coroutine function; AssertionError after `timeout`.

    Seconds `every` of 0 look in each step of the loop.
    """
    deadline = monotonic() + timeout
    while True:
        found = condition()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        assert monotonic() < deadline, f"waited {timeout:g} s for: {what}"
        await sleep(every)


def eventually_in_thread(condition: Callable[[], T], what: str = "the condition", timeout: float = HANG_S) -> T:
    """As `eventually`, for a test that blocks while other threads and processes go on."""
    deadline = monotonic() + timeout
    while not (value := condition()):
        assert monotonic() < deadline, f"waited {timeout:g} s for: {what}"
        sleep_in_thread(0.01)
    return value
