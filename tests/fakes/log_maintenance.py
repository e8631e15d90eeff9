"""service.ports.LogMaintenance without a database; tests/contract/test_log_maintenance.py holds what it shares."""

from datetime import timedelta

from service.domain.maintenance import OldestTransaction


class FakeLogMaintenance:
    """A log of so many old rows, and the transaction that holds the horizon."""

    def __init__(self, events: int = 0, messages: int = 0, decrypted: int = 0, sent: int = 0) -> None:
        """`decrypted`, `sent`: rows of whatsmeow's buffers."""
        self.events = events
        self.messages = messages
        self.decrypted = decrypted
        self.sent = sent
        self.holder: OldestTransaction | None = None
        self.fault: Exception | None = None
        """What every call raises, if anything."""
        self.calls = 0

    async def trim_events(self, older_than: timedelta, most: int) -> int:
        self._call()
        deleted = min(self.events, most)
        self.events -= deleted
        return deleted

    async def trim_messages(self, older_than: timedelta, most: int) -> int:
        self._call()
        deleted = min(self.messages, most)
        self.messages -= deleted
        return deleted

    async def trim_event_buffer(self, older_than: timedelta, most: int) -> int:
        self._call()
        deleted = min(self.decrypted, most)
        self.decrypted -= deleted
        return deleted

    async def trim_retry_buffer(self, older_than: timedelta, most: int) -> int:
        self._call()
        deleted = min(self.sent, most)
        self.sent -= deleted
        return deleted

    async def oldest_event_age(self) -> float:
        self._call()
        return 5.0 if self.events else 0.0

    async def horizon_holder(self) -> OldestTransaction | None:
        self._call()
        return self.holder

    def _call(self) -> None:
        self.calls += 1
        if self.fault is not None:
            raise self.fault
