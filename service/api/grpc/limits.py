"""What one caller, or many, may take of a node: the size of a request, connections, streams, calls at once.

Those of gRPC hold before the token is looked at, and all of them before a request is read. docs/limits.md has them.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from service.domain.errors import Unavailable

LARGEST_REQUEST = 1024 * 1024
"""Bytes. Four times the longest text: a field that is only too long is named, in INVALID_ARGUMENT."""
LONGEST_OPEN_REQUEST = 256
"""Bytes of a request that needs no token: it holds the name of a service."""
READ_TIME = 10.0
"""Seconds that a request may take to arrive after its call has begun."""
CALLS, STREAMS = 1_000, 1_000
"""That a node has under way at once. EventService.Watch has a bound of its own, ZAP_WATCH_STREAMS."""
HEALTH_CALLS, HEALTH_STREAMS = 100, 200
"""Those that need no token are counted apart: strangers can only get in each other's way."""
CONNECTIONS, NODE_CONNECTIONS = 500, 100
"""Of callers, and of other nodes."""
STREAMS_OF_A_CONNECTION = 1_000
"""Clients keep further calls with them until one ends."""
_ENDED_STREAMS = 4_000
"""Of a connection, that gRPC has not cleared away yet. Without room for them it refuses calls of honest clients, which
take a call for ended when its answer is there: UNAVAILABLE without RetryInfo, by the hundreds in a burst."""
_PENDING = 10_000
"""Calls that gRPC holds until the event loop takes them. Those on top it resets: their callers see CANCELLED."""
_UNREAD = 16 * 1024
"""Bytes that a caller may send of a request that is not read yet."""

_OPTIONS: Sequence[tuple[str, Any]] = (
    # A port that somebody else has is an error, not a share of his calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", LARGEST_REQUEST),
    # A megabyte of gzip would become a gigabyte before its size is looked at.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_concurrent_streams", STREAMS_OF_A_CONNECTION),
    ("grpc.http2.max_deallocating_streams", _ENDED_STREAMS),
    ("grpc.server.max_pending_requests", _PENDING),
    ("grpc.server.max_pending_requests_hard_limit", _PENDING),
    # Without the probe the window of a stream stays as small as it begins.
    ("grpc.http2.lookahead_bytes", _UNREAD),
    ("grpc.http2.bdp_probe", 0),
)


def server_options(connections: int) -> Sequence[tuple[str, Any]]:
    """gRPC's options for a server that has so many connections at once."""
    return (*_OPTIONS, ("grpc.max_allowed_incoming_connections", connections))


class Places:
    """So many calls at once, and no more."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place for as long as the context lasts. Raises Unavailable if there is none."""
        if self._taken >= self._most:
            raise Unavailable(
                f"this node has as many calls under way as it may ({self._most}); call again, or another node",
                reason="TOO_MANY_CALLS",
                metadata={"calls": str(self._most)},
                # Those of one burst are not to come back as one burst.
                retry_after=random.uniform(0.5, 1.5),  # noqa: S311 - no secret
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
