"""Declares live events and hints, which may be lost."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from service.domain.events import Event


class Publisher(Protocol):
    """Publishes live events and hints, here and to other nodes. They may be lost; never raises, never blocks."""

    def publish(self, events: Sequence[Event]) -> None:
        """Publish events to consumers."""

    def wake(self, session_id: str) -> None:
        """Notify listeners of this session that something about it changed."""

    def notify_work(self) -> None:
        """Notify reconcilers that a desired state changed or a lease is free.

        Not for what happens to an owned session: only its owner acts on that.
        """


class Wakeups(Protocol):
    """Passes hints to this node's listeners. Hints may be lost, so a listener also checks at intervals."""

    def listen(self, session_id: str) -> AbstractContextManager["Subscription"]:
        """Subscribe to hints about one session."""

    def listen_to_work(self) -> AbstractContextManager["Subscription"]:
        """Subscribe to hints that a desired state changed or a lease is free."""

    def listen_to_log(self) -> AbstractContextManager["Subscription"]:
        """Subscribe to hints that events of any session were appended."""

    def wake(self, session_id: str) -> None:
        """Notify this node's listeners of this session."""

    def notify_work(self) -> None:
        """Notify this node's listeners to work."""


class Subscription(Protocol):
    """Waits for hints for as long as its context lasts."""

    async def wait(self, timeout: float) -> None:
        """Wait until a hint has come since the last wait, or `timeout` seconds have passed."""
