"""Limits what callers may use of a node: request sizes, connections, streams, concurrent calls.

gRPC's limits apply before the token is checked, and all limits apply before a request is read. docs/limits.md lists
them.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from service.domain.errors import Unavailable

LARGEST_REQUEST = 1024 * 1024
"""Bytes. Four times the longest text, so that a field that is too long is usually named in INVALID_ARGUMENT."""
MAX_OPEN_REQUEST_BYTES = 256
"""Limit for a request that needs no token. It contains only the name of a service."""
READ_TIME = 10.0
"""Seconds in which a request must arrive after its call has begun."""
MAX_CALLS, MAX_STREAMS = 1_000, 1_000
"""Concurrent calls and streams of a node. EventService.Watch has a separate limit, ZAP_WATCH_STREAMS."""
HEALTH_CALLS, HEALTH_STREAMS = 100, 200
"""Limits for methods without a token, counted separately so that unauthenticated clients cannot block callers."""
MAX_CONNECTIONS, MAX_NODE_CONNECTIONS = 500, 100
"""Connections of callers and of other nodes."""
_MAX_STREAMS_PER_CONNECTION = 1_000
"""Clients queue further calls until one ends."""
_MAX_DEALLOCATING_STREAMS = 4_000
"""Ended streams of one connection that gRPC has not freed yet. Clients count a call as ended once its answer arrives;
with a lower limit gRPC refuses hundreds of calls in an honest burst: UNAVAILABLE without RetryInfo."""
_MAX_PENDING_CALLS = 10_000
"""Calls that gRPC queues for the event loop. It resets further ones, whose callers get CANCELLED."""
_MAX_UNREAD_BYTES = 16 * 1024
"""Bytes of an unread request that a caller may send."""

_OPTIONS: Sequence[tuple[str, Any]] = (
    # Fail on a port that is in use, instead of sharing its calls with another process.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", LARGEST_REQUEST),
    # Disable compression: a megabyte of gzip would become a gigabyte before gRPC checks its size.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_concurrent_streams", _MAX_STREAMS_PER_CONNECTION),
    ("grpc.http2.max_deallocating_streams", _MAX_DEALLOCATING_STREAMS),
    ("grpc.server.max_pending_requests", _MAX_PENDING_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING_CALLS),
    # Disable the bandwidth probe, which would enlarge the window of a stream.
    ("grpc.http2.lookahead_bytes", _MAX_UNREAD_BYTES),
    ("grpc.http2.bdp_probe", 0),
)


def server_options(connections: int) -> Sequence[tuple[str, Any]]:
    """Return gRPC's options for a server with at most this number of connections."""
    return (*_OPTIONS, ("grpc.max_allowed_incoming_connections", connections))


class CallLimiter:
    """Limits the number of concurrent calls."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._active = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot while the context lasts. Raise Unavailable if none is free."""
        if self._active >= self._limit:
            raise Unavailable(
                f"this node has reached its limit of {self._limit} concurrent calls; call again, or another node",
                reason="TOO_MANY_CALLS",
                metadata={"calls": str(self._limit)},
                # Spread the retries of a burst.
                retry_after=random.uniform(0.5, 1.5),  # noqa: S311 - no secret
            )
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
