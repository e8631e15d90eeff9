"""Defines every metric of the service, except the gauges registered in service/node/wiring.py."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.domain.maintenance import OldestTransaction
from service.ports.metrics import Metrics

_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0)


class RpcMetrics:
    """Counts calls and streams of the gRPC server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry, buckets=_CALL_BUCKETS)
        self._calls = counter("zap_rpc_calls", "Calls that ended, by method and code.", ["method", "code"])
        self._seconds = histogram(
            "zap_rpc_seconds", "How long calls took, by method; for a stream until it ended.", ["method"]
        )
        self._forwarded = counter(
            "zap_rpc_forwarded",
            "Calls forwarded to the node that owns the session, by method and code.",
            ["method", "code"],
        )
        self._streams = gauge("zap_rpc_open_streams", "Streams that are open now, by method.", ["method"])
        self._unreadable = counter(
            "zap_watch_events_unreadable",
            "Events that a stream of Watch left out, each time, because their payload in the log cannot be parsed.",
        )

    def observe(self, method: str, code: str, seconds: float) -> None:
        """Count a call that ended and record its duration."""
        self._calls.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)

    def forwarded(self, method: str, code: str) -> None:
        """Count a call that was forwarded to another node."""
        self._forwarded.labels(method, code).inc()

    def unreadable(self) -> None:
        """Count an event that a stream left out because it cannot be parsed."""
        self._unreadable.inc()

    def open_stream(self, method: str) -> AbstractContextManager[object]:
        """Count a stream while the context lasts."""
        return self._streams.labels(method.removeprefix("/")).track_inprogress()


class WatchMetrics(Metrics):
    """Counts what Watch reads from the event log and delivers to streams."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._streams = Gauge("zap_watch_streams", "Open streams of EventService.Watch.", registry=registry)
        self._delivered = Counter("zap_watch_events", "Events delivered, once for each stream.", registry=registry)
        self._lag = Histogram(
            "zap_watch_tail_lag_seconds",
            "From an event's append to its read by the tail of the log, by the database's clock; only while some stream"
            " is up to date.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )

    def open_stream(self) -> AbstractContextManager[object]:
        """Count a stream while the context lasts."""
        return self._streams.track_inprogress()

    def delivered(self) -> None:
        """Count an event delivered to a stream."""
        self._delivered.inc()

    def read_by_tail(self, lag: float) -> None:
        """Record how many seconds after its append the tail read an event."""
        self._lag.observe(lag)


class NodeMetrics(Metrics):
    """Counts what a node does with its sessions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry, buckets=_CALL_BUCKETS)
        self._renewals = counter("zap_lease_renewals", "Renewals of all leases of this node, by result.", ["result"])
        self._renewal_seconds = histogram(
            "zap_lease_renewal_seconds", "How long renewals took; one is aborted near 15 % of the ttl."
        )
        self._leases = gauge("zap_leases", "Leases that the last renewal confirmed.")
        self._stale_writes = counter(
            "zap_stale_writes",
            "Writes refused because their epoch was over, by operation and by whether the session has another owner or"
            " epoch (LEASE_LOST) or its desired state revoked the epoch (EPOCH_REVOKED).",
            ["operation", "reason"],
        )
        self._processes = gauge("zap_session_processes", "Running session processes.")
        self._starts = histogram("zap_session_process_start_seconds", "How long starts of session processes took.")
        self._outcomes = counter(
            "zap_session_starts",
            "Starts of session processes, by the lane in which they waited for a start permit, and by outcome:"
            " CONNECTED, the cause of the end that came before, or NO_PROCESS.",
            ["lane", "outcome"],
        )
        self._moves = counter(
            "zap_sessions_rebalanced", "Sessions that this node handed over because it owned more than others."
        )
        self._ends = counter("zap_session_process_ends", "Session processes that ended, by cause.", ["cause"])
        self._sends = histogram(
            "zap_send_seconds", "From handing a message to its session process to WhatsApp's acknowledgement."
        )
        self._send_pauses = counter("zap_send_pauses", "Pauses of a session's sends, because WhatsApp limits its rate.")
        self._events = counter("zap_events", "Events of this node's sessions, by type.", ["type"])
        self._repeated = counter("zap_events_repeated", "Inbound events that the log already had.")
        self._registry = registry

    def renewal(self, seconds: float, confirmed: int | None) -> None:
        """Count a renewal and how many leases it confirmed; None means that it failed."""
        self._renewals.labels("failed" if confirmed is None else "confirmed").inc()
        self._renewal_seconds.observe(seconds)
        if confirmed is not None:
            self._leases.set(confirmed)

    def stale_write(self, operation: str, reason: str) -> None:
        """Count a write refused because its epoch was over."""
        self._stale_writes.labels(operation, reason).inc()

    def process_started(self, seconds: float) -> None:
        """Count a session process that started, and record how long the start took."""
        self._processes.inc()
        self._starts.observe(seconds)

    def start_outcome(self, lane: str, outcome: str) -> None:
        """Count a start by its outcome: a connection or the end that came before."""
        self._outcomes.labels(lane, outcome).inc()

    def process_ended(self, cause: str) -> None:
        """Count a session process that ended."""
        self._processes.dec()
        self._ends.labels(cause).inc()

    def rebalanced(self) -> None:
        """Count a session handed over to balance the nodes."""
        self._moves.inc()

    def sent(self, seconds: float) -> None:
        """Record how many seconds after its send WhatsApp acknowledged a message."""
        self._sends.observe(seconds)

    def send_paused(self) -> None:
        """Count a pause of a session's sends."""
        self._send_pauses.inc()

    def event(self, kind: str) -> None:
        """Count a committed event."""
        self._events.labels(kind).inc()

    def repeated(self, count: int) -> None:
        """Count inbound events that the log already had."""
        self._repeated.inc(count)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Register a gauge whose value is computed at each scrape."""
        Gauge(name, meaning, registry=self._registry).set_function(value)


class MaintenanceMetrics:
    """Counts retention, the transaction that blocks Watch, and sessions by state."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        self._deleted = counter("zap_rows_deleted", "Old rows that this node deleted, by table.", ["table"])
        self._retention_failures = counter("zap_retention_failures", "Failed attempts to delete old rows.")
        self._retention_success = gauge(
            "zap_retention_last_success_time_seconds",
            "When this node last deleted old rows or left the deletion to another node.",
        )
        self._oldest_event = gauge("zap_event_oldest_age_seconds", "Age of the oldest event in the log.")
        self._horizon_age = gauge(
            "zap_watch_horizon_age_seconds",
            "How long the same transaction in flight has been seen to block Watch, which shows nothing newer.",
        )
        self._horizon_holder = gauge(
            "zap_watch_horizon_holder",
            "1 for the transaction that blocks Watch at two consecutive checks or more.",
            ["database", "application", "pid", "state"],
        )
        self._sessions = gauge(
            "zap_sessions",
            "Sessions of the whole database, by state and reason; counted at most 15 s ago.",
            ["state", "reason"],
        )
        self._wanted = Gauge(
            "zap_sessions_wanted",
            "Paired sessions of the whole database whose desired state is connected.",
            registry=registry,
        )
        self._counted_at = Gauge(
            "zap_sessions_count_time_seconds",
            "When the sessions of the whole database were counted, for zap_sessions and zap_sessions_wanted.",
            registry=registry,
        )

    def deleted(self, table: str, rows: int) -> None:
        """Count deleted rows of a table; 0 is a success too."""
        self._deleted.labels(table).inc(rows)
        self._retention_success.set_to_current_time()

    def retention_failed(self) -> None:
        """Count a deletion that failed."""
        self._retention_failures.inc()

    def oldest_event(self, age: float) -> None:
        """Set the age of the oldest event in the log, in seconds."""
        self._oldest_event.set(age)

    def horizon(self, holder: OldestTransaction | None, seconds: float) -> None:
        """Set which transaction blocks Watch and for how many seconds; one seen only once is not named."""
        self._horizon_age.set(seconds if holder is not None else 0.0)
        self._horizon_holder.clear()
        if holder is not None and seconds > 0:
            self._horizon_holder.labels(holder.database, holder.application, str(holder.pid), holder.state).set(1)

    def sessions(self, counts: Mapping[tuple[str, str], int], wanted: int, age_s: float) -> None:
        """Set the number of sessions in each state for each reason, and of those to be connected, and their age."""
        for labels, count in counts.items():
            self._sessions.labels(*labels).set(count)
        self._wanted.set(wanted)
        self._counted_at.set(time.time() - age_s)
