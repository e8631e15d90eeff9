"""Every metric of the service, in one place."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.domain.maintenance import OldestTransaction
from service.ports import Metrics

_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0)


class RpcMetrics:
    """Calls of the gRPC server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "zap_rpc_calls", "Calls that ended, by method and code.", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "zap_rpc_seconds",
            "How long calls took, by method; a stream until it ended.",
            ["method"],
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self._forwarded = Counter(
            "zap_rpc_forwarded",
            "Calls that were passed on to the node that owns the session, by method and what came of it.",
            ["method", "code"],
            registry=registry,
        )
        self._streams = Gauge(
            "zap_rpc_open_streams", "Streams that are open now, by method.", ["method"], registry=registry
        )
        self._unreadable = Counter(
            "zap_watch_events_unreadable",
            "Events that a stream of Watch left out, each time, because their payload in the log cannot be parsed.",
            registry=registry,
        )

    def observe(self, method: str, code: str, seconds: float) -> None:
        """A call ended."""
        self._calls.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)

    def forwarded(self, method: str, code: str) -> None:
        """Another node was asked to carry out a call."""
        self._forwarded.labels(method, code).inc()

    def unreadable(self) -> None:
        """A stream left out an event that cannot be parsed."""
        self._unreadable.inc()

    def open_stream(self, method: str) -> AbstractContextManager[object]:
        """A stream, for as long as the context lasts."""
        return self._streams.labels(method.removeprefix("/")).track_inprogress()


class WatchMetrics(Metrics):
    """What is read of the event log, and who is given it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._streams = Gauge("zap_watch_streams", "Streams of EventService.Watch that stand.", registry=registry)
        self._given = Counter("zap_watch_events", "Events given out to streams, each time.", registry=registry)
        self._lag = Histogram(
            "zap_watch_tail_lag_seconds",
            "From an event's being appended to its being read by the tail of the log, by the database's clock; only"
            " while there are streams that are up to date.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )

    def open_stream(self) -> AbstractContextManager[object]:
        """A stream, for as long as the context lasts."""
        return self._streams.track_inprogress()

    def given(self) -> None:
        """A stream was given an event."""
        self._given.inc()

    def read_by_tail(self, lag: float) -> None:
        """The tail came to an event, so many seconds after it was appended."""
        self._lag.observe(lag)


class NodeMetrics(Metrics):
    """What a node does with its sessions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._renewals = Counter(
            "zap_lease_renewals", "Renewals of all leases of this node, by result.", ["result"], registry=registry
        )
        self._renewal_seconds = Histogram(
            "zap_lease_renewal_seconds",
            "How long renewals took: near the ttl's 15 % they are given up.",
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self._leases = Gauge("zap_leases", "Leases that the last renewal confirmed.", registry=registry)
        self._stale_writes = Counter(
            "zap_stale_writes",
            "Writes that were refused because the epoch that made them was over: by what they were, and whether the"
            " session has another owner or epoch (LEASE_LOST), or its wish was withdrawn (EPOCH_REVOKED).",
            ["operation", "reason"],
            registry=registry,
        )
        self._processes = Gauge("zap_session_processes", "Session processes that run.", registry=registry)
        self._starts = Histogram(
            "zap_session_process_start_seconds",
            "How long starts of session processes took.",
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self._outcomes = Counter(
            "zap_session_starts",
            "Starts of session processes, by the lane in which they waited for their turn, and by what came of them:"
            " CONNECTED, or the cause of the end that came first, or NO_PROCESS.",
            ["lane", "outcome"],
            registry=registry,
        )
        self._moves = Counter(
            "zap_sessions_rebalanced",
            "Sessions that this node handed to another one because it owned more than others.",
            registry=registry,
        )
        self._ends = Counter(
            "zap_session_process_ends", "Session processes that ended, by cause.", ["cause"], registry=registry
        )
        self._sends = Histogram(
            "zap_send_seconds",
            "From a message handed to its process to WhatsApp's acknowledgement.",
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self._events = Counter("zap_events", "Events of this node's sessions, by type.", ["type"], registry=registry)
        self._repeated = Counter(
            "zap_events_repeated", "Inbound events that came again: the log had them already.", registry=registry
        )
        self._registry = registry

    def renewal(self, seconds: float, confirmed: int | None) -> None:
        """A renewal ended with so many leases confirmed; None: it failed."""
        self._renewals.labels("failed" if confirmed is None else "confirmed").inc()
        self._renewal_seconds.observe(seconds)
        if confirmed is not None:
            self._leases.set(confirmed)

    def stale_write(self, operation: str, reason: str) -> None:
        """The fence refused a write."""
        self._stale_writes.labels(operation, reason).inc()

    def process_started(self, seconds: float) -> None:
        """A session process runs."""
        self._processes.inc()
        self._starts.observe(seconds)

    def start_came_to(self, lane: str, outcome: str) -> None:
        """A start led to a connection, or to an end before there was one."""
        self._outcomes.labels(lane, outcome).inc()

    def process_ended(self, cause: str) -> None:
        """A session process is dead."""
        self._processes.dec()
        self._ends.labels(cause).inc()

    def rebalanced(self) -> None:
        """A session was handed over to share sessions out."""
        self._moves.inc()

    def sent(self, seconds: float) -> None:
        """WhatsApp acknowledged a message."""
        self._sends.observe(seconds)

    def event(self, kind: str) -> None:
        """An event was committed."""
        self._events.labels(kind).inc()

    def repeated(self, count: int) -> None:
        """So many inbound events were in the log already."""
        self._repeated.inc(count)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """A number that somebody else keeps, read whenever Prometheus asks: dropped live events, for one."""
        Gauge(name, meaning, registry=self._registry).set_function(value)


class UpkeepMetrics:
    """What is old in the database, what holds Watch up, and how many sessions there are."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._deleted = Counter(
            "zap_rows_deleted",
            "Rows that this node deleted because they were old, by table.",
            ["table"],
            registry=registry,
        )
        self._retention_failures = Counter(
            "zap_retention_failures", "Tries to delete what is old that failed.", registry=registry
        )
        self._retention_success = Gauge(
            "zap_retention_last_success_time_seconds",
            "When this node last saw to it that nothing older is kept, itself or by leaving it to another one.",
            registry=registry,
        )
        self._oldest_event = Gauge(
            "zap_event_oldest_age_seconds", "Since the oldest event in the log was appended.", registry=registry
        )
        self._horizon_age = Gauge(
            "zap_watch_horizon_age_seconds",
            "For how long one transaction in flight has held Watch up, as far as it was seen: nothing newer is shown.",
            registry=registry,
        )
        self._horizon_holder = Gauge(
            "zap_watch_horizon_holder",
            "Whose transaction that is: 1 for the one that holds Watch up at two looks or more.",
            ["database", "application", "pid", "state"],
            registry=registry,
        )
        self._sessions = Gauge(
            "zap_sessions",
            "Sessions of the whole database, by state and reason; counted every 15 s.",
            ["state", "reason"],
            registry=registry,
        )

    def deleted(self, table: str, rows: int) -> None:
        """So many rows were old."""
        self._deleted.labels(table).inc(rows)
        self._retention_success.set_to_current_time()

    def retention_failed(self) -> None:
        """Old rows could not be deleted."""
        self._retention_failures.inc()

    def oldest_event(self, age: float) -> None:
        """The oldest event in the log was appended so many seconds ago."""
        self._oldest_event.set(age)

    def horizon(self, holder: OldestTransaction | None, seconds: float) -> None:
        """Who holds Watch up, and for how long he has been seen to. Whoever is seen once only is nobody's worry."""
        self._horizon_age.set(seconds if holder is not None else 0.0)
        self._horizon_holder.clear()
        if holder is not None and seconds > 0:
            self._horizon_holder.labels(holder.database, holder.application, str(holder.pid), holder.state).set(1)

    def sessions(self, counts: Mapping[tuple[str, str], int]) -> None:
        """So many sessions are in each state for each reason."""
        for labels, count in counts.items():
            self._sessions.labels(*labels).set(count)
