"""The one way in which tests wait for what comes about by itself."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

HANG_S = 20.0
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
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout:g} s for: {what}"
        await asyncio.sleep(every)


def eventually_in_thread(condition: Callable[[], T], what: str = "the condition", timeout: float = HANG_S) -> T:
    """As `eventually`, for a test that blocks while other threads and processes go on."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout:g} s for: {what}"
        time.sleep(0.01)
    return value
