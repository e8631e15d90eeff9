"""Hints inside this process, and across nodes when Redis is there."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from types import TracebackType

WORK = ""
"""The key of those who claim and stop sessions; no session has an empty id."""
LOG = "*"
"""The key of those who read the log; no session has such an id."""


class Listener:
    """ports.Listening: remembers that a hint came until somebody waits for it."""

    def __init__(self, hub: "WakeupHub", key: str) -> None:
        self._hub = hub
        self._key = key
        self._hint = asyncio.Event()

    def __enter__(self) -> "Listener":
        self._hub.add(self._key, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hub.remove(self._key, self)

    def hint(self) -> None:
        """Something changed."""
        self._hint.set()

    async def wait(self, timeout: float) -> None:
        """Until a hint came since the last wait, or `timeout` seconds have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._hint.wait()
        self._hint.clear()


class WakeupHub:
    """ports.Wakeups: who listens in this process."""

    def __init__(self) -> None:
        self._listeners: defaultdict[str, set[Listener]] = defaultdict(set)

    def listen(self, session_id: str) -> Listener:
        """Hints about one session from now on."""
        return Listener(self, session_id)

    def listen_to_work(self) -> Listener:
        """Hints that a wish changed or a lease is free, from now on."""
        return Listener(self, WORK)

    def listen_to_log(self) -> Listener:
        """Hints that something was appended to the log, of whatever session, from now on."""
        return Listener(self, LOG)

    def wake(self, session_id: str) -> None:
        """Have whoever listens here for this session look again."""
        for listener in self._listeners.get(session_id, ()):
            listener.hint()

    def reconcile(self) -> None:
        """Have whoever listens here for work look again."""
        self.wake(WORK)

    def add(self, key: str, listener: Listener) -> None:
        """Listen."""
        self._listeners[key].add(listener)

    def remove(self, key: str, listener: Listener) -> None:
        """Listen no more; nothing is left of a key that nobody listens to."""
        self._listeners[key].discard(listener)
        if not self._listeners[key]:
            del self._listeners[key]

    def __len__(self) -> int:
        """Listeners."""
        return sum(len(listeners) for listeners in self._listeners.values())
