"""Hints inside this process, and across nodes when Redis is there."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

WORK_TOPIC = ""
"""The key of those who claim and stop sessions; no session has an empty id."""
LOG_TOPIC = "*"
"""The key of those who read the log; no session has such an id."""


class Listener:
    """ports.Listening: remembers that a hint came until somebody waits for it."""

    def __init__(self) -> None:
        self._hint = asyncio.Event()

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

    @contextmanager
    def listen(self, session_id: str) -> Iterator[Listener]:
        """Hints about one session from now on; nothing is left of a key that nobody listens to."""
        listener = Listener()
        self._listeners[session_id].add(listener)
        try:
            yield listener
        finally:
            self._listeners[session_id].discard(listener)
            if not self._listeners[session_id]:
                del self._listeners[session_id]

    def listen_to_work(self) -> AbstractContextManager[Listener]:
        """Hints that a wish changed or a lease is free, from now on."""
        return self.listen(WORK_TOPIC)

    def listen_to_log(self) -> AbstractContextManager[Listener]:
        """Hints that something was appended to the log, of whatever session, from now on."""
        return self.listen(LOG_TOPIC)

    def wake(self, session_id: str) -> None:
        """Have whoever listens here for this session look again."""
        for listener in self._listeners.get(session_id, ()):
            listener.hint()

    def reconcile(self) -> None:
        """Have whoever listens here for work look again."""
        self.wake(WORK_TOPIC)

    def __len__(self) -> int:
        """Listeners."""
        return sum(len(listeners) for listeners in self._listeners.values())
