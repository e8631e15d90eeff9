"""Reports failures of zapctl: a sentence for people, a reason for programs and an exit code for scripts."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status
from rich.console import Console
from rich.text import Text

from zap.v1 import session_pb2

EXIT_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 3,
    grpc.StatusCode.NOT_FOUND: 4,
    grpc.StatusCode.ALREADY_EXISTS: 5,
    grpc.StatusCode.FAILED_PRECONDITION: 6,
    grpc.StatusCode.ABORTED: 7,
    grpc.StatusCode.UNAVAILABLE: 8,
    grpc.StatusCode.UNAUTHENTICATED: 9,
    grpc.StatusCode.DEADLINE_EXCEEDED: 10,
    grpc.StatusCode.OUT_OF_RANGE: 11,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 12,
    grpc.StatusCode.DATA_LOSS: 13,
}
"""Exit codes by gRPC status; other errors are 1, and 2 is a wrong command line."""
OUTCOME_EXIT_CODES = {
    session_pb2.PAIRING_OUTCOME_PAIRED: 0,
    session_pb2.PAIRING_OUTCOME_TIMED_OUT: 20,
    session_pb2.PAIRING_OUTCOME_PASSKEY_REQUIRED: 21,
    session_pb2.PAIRING_OUTCOME_REJECTED: 22,
    session_pb2.PAIRING_OUTCOME_CANCELLED: 23,
}
"""Exit codes by outcome of a pairing; UNKNOWN_OUTCOME if this zapctl does not know it."""
UNKNOWN_OUTCOME = 24
NOT_SENT, OUTCOME_UNKNOWN = 30, 31
"""Exit codes for a message that was certainly not sent, and for one whose outcome is unknown."""
_INTERRUPTED = 130


@contextmanager
def explained() -> Iterator[None]:
    """Explain an error of a call on stderr and exit with its code."""
    try:
        yield
    except grpc.RpcError as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        for line in explanation(error):
            console.print(Text(line))
        sys.exit(EXIT_CODES.get(error.code(), 1))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def explanation(error: grpc.RpcError) -> list[str]:
    """Return the lines that explain an error."""
    found = _details(error)
    info = found.get(details.ErrorInfo)
    reason = info.reason if info else error.code().name
    violations = found[details.BadRequest].field_violations if details.BadRequest in found else ()
    # With violations, the server's sentence only repeats them.
    sentence = "the request is wrong" if violations else error.details() or "no explanation was given"
    lines = [f"{sentence} ({reason})", *(f"  {v.field}: {v.description}" for v in violations)]
    if details.RetryInfo in found:
        lines.append(f"  try again in {found[details.RetryInfo].retry_delay.ToTimedelta().total_seconds():g} s")
    return lines


def retry_delay(error: grpc.RpcError) -> float:
    """Return the retry delay that the server asks for, in seconds; 1 if it names none."""
    info = _details(error).get(details.RetryInfo)
    return float(info.retry_delay.ToTimedelta().total_seconds()) if info else 1.0


def _details(error: Any) -> dict[Any, Any]:
    """Return the details of the google.rpc.Status by type; empty if there is none, as after a lost connection."""
    found: dict[Any, Any] = {}
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        try:
            status = Status.FromString(value)
        except DecodeError:
            return found
        for packed in status.details:
            for kind in (details.ErrorInfo, details.BadRequest, details.RetryInfo):
                if packed.Is(kind.DESCRIPTOR):
                    found[kind] = kind()
                    packed.Unpack(found[kind])
    return found
