"""The table of errors: complete, and with exactly the details that it promises."""

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2 as details

from service.api.grpc import errors
from service.domain import errors as domain

SAMPLES: dict[type[domain.ZapError], domain.ZapError] = {
    domain.InvalidArgument: domain.InvalidArgument([domain.FieldViolation("name", "is too long")]),
    domain.NotFound: domain.session_not_found("a"),
    domain.AlreadyExists: domain.AlreadyExists("taken", metadata={"session_id": "a"}),
    domain.FailedPrecondition: domain.FailedPrecondition("no", reason="NOT_PAIRING", metadata={"session_id": "a"}),
    domain.Conflict: domain.Conflict("changed", metadata={"session_id": "a"}),
    domain.Unavailable: domain.Unavailable("not now", retry_after=1.5),
    domain.LeaseLost: domain.LeaseLost("not ours"),
    domain.EpochRevoked: domain.EpochRevoked("not wanted any more"),
    domain.OutOfRange: domain.OutOfRange("deleted", metadata={"resume_token": "t"}),
    domain.ConsumerTooSlow: domain.ConsumerTooSlow("too slow", metadata={"resume_token": "t"}),
    domain.Unauthenticated: domain.Unauthenticated("who are you?"),
    domain.Forbidden: domain.Forbidden("no administrator"),
    domain.OutcomeUnknown: domain.OutcomeUnknown("no answer"),
    domain.DataLoss: domain.DataLoss("damaged"),
    domain.ResourceExhausted: domain.ResourceExhausted("too many", retry_after=30.0),
}
EXPECTED = {
    domain.InvalidArgument: (grpc.StatusCode.INVALID_ARGUMENT, details.BadRequest),
    domain.NotFound: (grpc.StatusCode.NOT_FOUND, details.ResourceInfo),
    domain.AlreadyExists: (grpc.StatusCode.ALREADY_EXISTS, details.ResourceInfo),
    domain.FailedPrecondition: (grpc.StatusCode.FAILED_PRECONDITION, details.PreconditionFailure),
    domain.Conflict: (grpc.StatusCode.ABORTED, None),
    domain.Unavailable: (grpc.StatusCode.UNAVAILABLE, details.RetryInfo),
    domain.LeaseLost: (grpc.StatusCode.UNAVAILABLE, details.RetryInfo),
    domain.EpochRevoked: (grpc.StatusCode.UNAVAILABLE, details.RetryInfo),
    domain.OutOfRange: (grpc.StatusCode.OUT_OF_RANGE, None),
    domain.ConsumerTooSlow: (grpc.StatusCode.RESOURCE_EXHAUSTED, None),
    domain.Unauthenticated: (grpc.StatusCode.UNAUTHENTICATED, None),
    domain.Forbidden: (grpc.StatusCode.PERMISSION_DENIED, None),
    domain.OutcomeUnknown: (grpc.StatusCode.DEADLINE_EXCEEDED, None),
    domain.DataLoss: (grpc.StatusCode.DATA_LOSS, None),
    domain.ResourceExhausted: (grpc.StatusCode.RESOURCE_EXHAUSTED, details.RetryInfo),
}
HEADERS = 8 * 1024


def every_error(kind: type[domain.ZapError] = domain.ZapError) -> Iterator[type[domain.ZapError]]:
    for child in kind.__subclasses__():
        yield child
        yield from every_error(child)


@pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.__name__)
def test_every_error_has_its_code_and_its_details(kind: type[domain.ZapError]) -> None:
    error = SAMPLES[kind]
    code, detail = EXPECTED[kind]
    status = errors.status_of(error, "Test")
    assert errors.code_of(status) is code
    assert [packed.TypeName() for packed in status.details] == [
        "google.rpc.ErrorInfo",
        *([detail.DESCRIPTOR.full_name] if detail else []),
    ]
    info = details.ErrorInfo()
    status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (error.reason, "zap.v1", error.metadata)


@pytest.mark.parametrize("error", [RuntimeError("hunter2"), KeyError("hunter2"), domain.ZapError("hunter2")])
def test_what_the_table_does_not_know_is_an_incident(error: Exception) -> None:
    status = errors.status_of(error, "Test")
    assert errors.code_of(status) is grpc.StatusCode.INTERNAL
    assert "hunter2" not in str(status)
    info = details.ErrorInfo()
    status.details[0].Unpack(info)
    assert info.metadata["incident"] in status.message


@pytest.mark.parametrize("letter", ["x", "ü", "\U0001f600"])
def test_no_error_is_too_long_for_headers(letter: str) -> None:
    long = letter * 100_000
    violations = [domain.FieldViolation(long, long)] * 1000
    metadata = {f"{number}{long}": long for number in range(100)} | {"session_id": long}
    for error in (
        domain.InvalidArgument(violations),
        domain.NotFound(long, metadata=metadata),
        domain.FailedPrecondition(long, metadata=metadata),
        domain.Unavailable(long, metadata=metadata),
    ):
        # On the wire the details are in base64, and the sentence is beside them once more, each byte as %XX.
        status = errors.status_of(error, "Test")
        assert len(status.SerializeToString()) * 4 / 3 + len(status.message.encode()) * 3 < HEADERS, type(error)
