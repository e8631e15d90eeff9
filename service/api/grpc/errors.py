"""Maps every error to the google.rpc.Status, with details, that the caller gets. This is the only such table.

InvalidArgument     INVALID_ARGUMENT     ErrorInfo, BadRequest
NotFound            NOT_FOUND            ErrorInfo, ResourceInfo
AlreadyExists       ALREADY_EXISTS       ErrorInfo, ResourceInfo
FailedPrecondition  FAILED_PRECONDITION  ErrorInfo, PreconditionFailure
Conflict            ABORTED              ErrorInfo
OutOfRange          OUT_OF_RANGE         ErrorInfo
ConsumerTooSlow     RESOURCE_EXHAUSTED   ErrorInfo
ResourceExhausted   RESOURCE_EXHAUSTED   ErrorInfo, RetryInfo
Forbidden           PERMISSION_DENIED    ErrorInfo
OutcomeUnknown      DEADLINE_EXCEEDED    ErrorInfo
DataLoss            DATA_LOSS            ErrorInfo
Unavailable         UNAVAILABLE          ErrorInfo, RetryInfo
Unauthenticated     UNAUTHENTICATED      ErrorInfo
any other           INTERNAL             ErrorInfo with the id of an incident, which the log explains
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import structlog
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from service.api.grpc.context import Context
from service.domain.errors import (
    AlreadyExists,
    Conflict,
    ConsumerTooSlow,
    DataLoss,
    FailedPrecondition,
    Forbidden,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    OutOfRange,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    ZapError,
)

DOMAIN = "zap.v1"
_MAX_TEXT_BYTES = 400
"""Limit for each text; longer ones are cut. Errors travel in HTTP/2 headers, which clients limit to 8 KiB in all."""
_MAX_VIOLATIONS_BYTES = 2000
_MAX_METADATA_BYTES = 800
"""Limits for all violations and all metadata together; entries that do not fit are left out."""

log = structlog.get_logger(__name__)


class RemoteError(Exception):
    """The owner's error for a forwarded call. The caller gets the same status."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


@dataclass(frozen=True)
class Row:
    """The gRPC code of one error class, and a function that builds its detail besides ErrorInfo."""

    code: grpc.StatusCode
    detail: Callable[[Any], Message] | None = None


def _bad_request(error: InvalidArgument) -> details.BadRequest:
    request = details.BadRequest()
    for violation in error.violations:
        request.field_violations.add(field=_clip(violation.field, 200), description=_clip(violation.description))
        if request.ByteSize() > _MAX_VIOLATIONS_BYTES:
            request.field_violations.pop()
            break
    return request


def _retry_info(error: Unavailable | ResourceExhausted) -> details.RetryInfo:
    info = details.RetryInfo()
    info.retry_delay.FromMilliseconds(max(0, round(error.retry_after * 1000)))
    return info


def _precondition_failure(error: FailedPrecondition) -> details.PreconditionFailure:
    violation = details.PreconditionFailure.Violation(
        type=error.reason, subject=_clip(error.metadata.get("session_id", "")), description=_clip(error.message)
    )
    return details.PreconditionFailure(violations=[violation])


def _resource_info(error: NotFound | AlreadyExists) -> details.ResourceInfo:
    """Name the missing message if the metadata has a request_id, or the missing file; otherwise name the session."""
    session_id, request_id = error.metadata.get("session_id", ""), error.metadata.get("request_id", "")
    if "encrypted_sha256" in error.metadata:
        kind, name = "zap.v1.MediaContent", error.metadata["encrypted_sha256"]
    elif request_id and isinstance(error, NotFound):
        kind, name = "zap.v1.Message", f"{session_id}/{request_id}"
    else:
        kind, name = "zap.v1.Session", session_id
    return details.ResourceInfo(resource_type=kind, resource_name=_clip(name), description=_clip(error.message))


ERROR_TABLE: dict[type[ZapError], Row] = {
    InvalidArgument: Row(grpc.StatusCode.INVALID_ARGUMENT, _bad_request),
    NotFound: Row(grpc.StatusCode.NOT_FOUND, _resource_info),
    AlreadyExists: Row(grpc.StatusCode.ALREADY_EXISTS, _resource_info),
    FailedPrecondition: Row(grpc.StatusCode.FAILED_PRECONDITION, _precondition_failure),
    Conflict: Row(grpc.StatusCode.ABORTED),
    OutOfRange: Row(grpc.StatusCode.OUT_OF_RANGE),
    ConsumerTooSlow: Row(grpc.StatusCode.RESOURCE_EXHAUSTED),
    ResourceExhausted: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, _retry_info),
    Forbidden: Row(grpc.StatusCode.PERMISSION_DENIED),
    OutcomeUnknown: Row(grpc.StatusCode.DEADLINE_EXCEEDED),
    DataLoss: Row(grpc.StatusCode.DATA_LOSS),
    Unavailable: Row(grpc.StatusCode.UNAVAILABLE, _retry_info),
    Unauthenticated: Row(grpc.StatusCode.UNAUTHENTICATED),
}


def status_of(error: Exception, method: str) -> Status:
    """Return the status for a caller of `method`. Log an unexpected error, here only, with its traceback."""
    if isinstance(error, RemoteError):
        return error.status
    row = _row(error)
    if row is None or not isinstance(error, ZapError):
        return _incident(error, method)
    return _status(row.code, error.message, error.reason, error.metadata, row.detail(error) if row.detail else None)


def code_of(status: Status) -> grpc.StatusCode:
    """Return the gRPC code of a status."""
    return _CODES[status.code]


async def abort(context: Context, status: Status) -> None:
    """End a call with a status and its details. Always raises.

    grpc.aio's context has no abort_with_status, so the details go into a trailer of its abort.
    """
    trailers = rpc_status.to_status(status).trailing_metadata
    try:
        await context.abort(code_of(status), status.message, trailers or ())
    except grpc.aio.InternalError as error:
        # The client is not reading. It gets the status when it resumes, or never if it disconnects.
        raise asyncio.CancelledError from error


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _row(error: Exception) -> Row | None:
    return next((ERROR_TABLE[kind] for kind in type(error).__mro__ if kind in ERROR_TABLE), None)


def _incident(error: Exception, method: str) -> Status:
    incident = uuid4().hex
    log.error("A call failed with an unexpected error.", incident=incident, method=method, exc_info=error)
    message = f"an internal error; the server's log explains it under incident {incident}"
    return _status(grpc.StatusCode.INTERNAL, message, "INTERNAL", {"incident": incident}, None)


def _status(
    code: grpc.StatusCode, message: str, reason: str, metadata: dict[str, str], detail: Message | None
) -> Status:
    status = Status(code=code.value[0], message=_clip(message))
    info = details.ErrorInfo(reason=reason, domain=DOMAIN)
    for key, value in metadata.items():
        shown = _clip(value)
        if info.ByteSize() + len(key.encode()) + len(shown.encode()) > _MAX_METADATA_BYTES:
            break
        info.metadata[key] = shown
    status.details.add().Pack(info)
    if detail is not None:
        status.details.add().Pack(detail)
    return status


def _clip(text: str, longest: int = _MAX_TEXT_BYTES) -> str:
    """Return at most `longest` bytes of a text, cut between characters."""
    data = text.encode(errors="replace")
    return data.decode() if len(data) <= longest else data[: longest - 3].decode(errors="ignore") + "…"
