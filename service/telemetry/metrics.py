"""Every metric of the service, in one place. What is measured does not know: the wrappers are in `measured`."""

from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


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
        self._streams = Gauge(
            "zap_rpc_open_streams", "Streams that are open now, by method.", ["method"], registry=registry
        )

    def observe(self, method: str, code: str, seconds: float) -> None:
        """A call ended."""
        self._calls.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)

    def open_stream(self, method: str) -> AbstractContextManager[object]:
        """A stream, for as long as the context lasts."""
        return self._streams.labels(method.removeprefix("/")).track_inprogress()
