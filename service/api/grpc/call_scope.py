"""Ends every call in one way: answers the caller with a status, logs one line and updates the metrics."""

import time
from types import TracebackType
from typing import Self

import grpc
import structlog
from google.rpc.status_pb2 import Status

from service.api.grpc.context import Context
from service.api.grpc.errors import abort, code_of, status_of
from service.domain.caller import Caller
from service.protocol.methods import FREQUENT_METHODS
from service.telemetry.metrics import RpcMetrics

log = structlog.get_logger(__name__)


class CallScope:
    """A context around a handler that converts an exception into the status of the call."""

    def __init__(self, method: str, context: Context, metrics: RpcMetrics) -> None:
        self._method = method
        self._context = context
        self._metrics = metrics
        self._started = 0.0
        self.session_id = ""
        self.caller: Caller | None = None
        """Set once the call is admitted."""
        self.has_request = False

    async def __aenter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        status = None
        if error is None:
            code = grpc.StatusCode.OK
        elif isinstance(error, grpc.aio.AbortError):
            # A servicer that is not ours (health) has already set the status.
            code = self._context.code()
        elif isinstance(error, Exception):
            status = status_of(error, self._method)
            code = code_of(status)
        else:
            # gRPC cancels the handler's task or closes its generator on a disconnect or a passed deadline.
            code = grpc.StatusCode.CANCELLED
        self._record(code, status)
        if status is not None:
            await abort(self._context, status)

    def _record(self, code: grpc.StatusCode, status: Status | None) -> None:
        seconds = time.perf_counter() - self._started
        self._metrics.observe(self._method, code.name, seconds)
        quiet = code is grpc.StatusCode.OK and _is_frequent(self._method)
        # The caller disconnected before it sent a request. Unauthenticated clients could fill the log with these.
        quiet = quiet or (code is grpc.StatusCode.CANCELLED and not self.has_request)
        fields: dict[str, object] = {"method": self._method, "code": code.name, "ms": round(seconds * 1000, 1)}
        if self.caller is not None:
            fields["caller"] = self.caller.id
        if self.session_id:
            fields["session_id"] = self.session_id
        if status is not None:
            fields["error"] = status.message
        (log.debug if quiet else log.info)("call", **fields)


def _is_frequent(method: str) -> bool:
    """Return whether a success is logged at debug level, as for gRPC's own methods: health and reflection."""
    return method in FREQUENT_METHODS or not method.startswith("zap.")
