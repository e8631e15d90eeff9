"""Declares what the core counts."""

from contextlib import AbstractContextManager, nullcontext


class Metrics:
    """Receives what the core counts, and discards it; service.telemetry.metrics counts."""

    def renewal(self, seconds: float, confirmed: int | None) -> None:
        """Count a renewal, with so many leases confirmed; None: it failed."""

    def stale_write(self, operation: str, reason: str) -> None:
        """Count a write that the fence refused."""

    def process_started(self, seconds: float) -> None:
        """Count a session process that runs, and how long its start took."""

    def start_outcome(self, lane: str, outcome: str) -> None:
        """Count the result of a start: a connection, or an end before there was one."""

    def process_ended(self, cause: str) -> None:
        """Count a session process that is dead."""

    def sent(self, seconds: float) -> None:
        """Count a message that WhatsApp acknowledged, and how long that took."""

    def send_paused(self) -> None:
        """Count a pause of a session's sends, because WhatsApp limits its rate."""

    def event(self, kind: str) -> None:
        """Count an event that was committed."""

    def repeated(self, count: int) -> None:
        """Count inbound events that the log had already."""

    def open_stream(self) -> AbstractContextManager[object]:
        """Count a stream of Watch, for as long as the context lasts."""
        return nullcontext()

    def delivered(self) -> None:
        """Count a delivery to a stream."""

    def read_by_tail(self, lag: float) -> None:
        """Observe the seconds between an event's append and its read by the tail."""
