"""Distributes hints inside this process; RedisBus adds the hints of other nodes."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

WORK_TOPIC = ""
"""Topic of hints about claiming and stopping sessions; no session has an empty id."""
LOG_TOPIC = "*"
"""Topic of hints about appended events; no session has this id."""


class Listener:
    """Remembers a hint until the next wait (ports.bus.Subscription)."""

    def __init__(self) -> None:
        self._hint = asyncio.Event()

    def hint(self) -> None:
        """End the current or the next wait."""
        self._hint.set()

    async def wait(self, timeout: float) -> None:
        """Wait until a hint has come since the last wait, at most `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._hint.wait()
        self._hint.clear()


class WakeupHub:
    """Holds the listeners of this process by topic (ports.bus.Wakeups)."""

    def __init__(self) -> None:
        self._listeners: defaultdict[str, set[Listener]] = defaultdict(set)

    @contextmanager
    def listen(self, session_id: str) -> Iterator[Listener]:
        """Receive hints about one session while the context lasts; topics without listeners are removed."""
        listener = Listener()
        self._listeners[session_id].add(listener)
        try:
            yield listener
        finally:
            self._listeners[session_id].discard(listener)
            if not self._listeners[session_id]:
                del self._listeners[session_id]

    def listen_to_work(self) -> AbstractContextManager[Listener]:
        """Receive hints that a desired state changed or a lease is free."""
        return self.listen(WORK_TOPIC)

    def listen_to_log(self) -> AbstractContextManager[Listener]:
        """Receive hints that an event of any session was appended to the log."""
        return self.listen(LOG_TOPIC)

    def wake(self, session_id: str) -> None:
        """Notify the listeners of a session in this process."""
        for listener in self._listeners.get(session_id, ()):
            listener.hint()

    def notify_work(self) -> None:
        """Notify the listeners for work in this process."""
        self.wake(WORK_TOPIC)
