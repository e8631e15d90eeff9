"""Define the errors that callers see, as one tree.

    ZapError
     ├─ InvalidArgument           the request is wrong, and will be wrong again
     ├─ NotFound                  no such session, or message
     ├─ AlreadyExists             the id is taken
     ├─ FailedPrecondition        the request is right, the state is wrong
     ├─ Conflict                  another caller changed it first (an etag)
     ├─ OutOfRange                a log position that does not exist, or no longer exists
     ├─ ConsumerTooSlow           events come faster than the consumer reads them
     ├─ Forbidden                 WhatsApp does not allow it to this account
     ├─ ResourceExhausted         a limit is reached; the same call may succeed later
     ├─ OutcomeUnknown            WhatsApp did not answer; it may have been done
     ├─ DataLoss                  what was read or stored is not what it should be
     ├─ Unauthenticated           the caller did not show that it may call
     └─ Unavailable               nothing was done; a retry may succeed
         └─ LeaseLost             this node no longer owns the session it was working for
             └─ EpochRevoked      … or still does, but its epoch must end

Each carries a `reason` in UPPER_SNAKE that never changes, a sentence, and `metadata` with every value in the sentence.
Only `service.api.grpc.errors` maps them to gRPC's codes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldViolation:
    """Names a wrong field by its path in the request, and says what would be right."""

    field: str
    description: str


class ZapError(Exception):
    """Base of all errors that callers see."""

    reason: str = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.metadata = dict(metadata or {})


class InvalidArgument(ZapError):
    """The request is wrong, whatever the state; nothing was changed."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Sequence[FieldViolation], *, reason: str | None = None) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations), reason=reason)
        self.violations = tuple(violations)


class NotFound(ZapError):
    """The session or message does not exist."""

    reason = "NOT_FOUND"


class AlreadyExists(ZapError):
    """The id is taken."""

    reason = "ALREADY_EXISTS"


class FailedPrecondition(ZapError):
    """The request is right, but the state is not; metadata names the state and the required one."""

    reason = "FAILED_PRECONDITION"


class Conflict(ZapError):
    """Another caller changed the session first; read it again."""

    reason = "ETAG_MISMATCH"


class OutOfRange(ZapError):
    """The log position no longer exists, or never did; metadata has one that exists."""

    reason = "RESUME_TOKEN_EXPIRED"


class ConsumerTooSlow(ZapError):
    """Events come faster than the consumer reads them; metadata has the position of its last one."""

    reason = "CONSUMER_TOO_SLOW"


class Forbidden(ZapError):
    """WhatsApp does not allow it to this account."""

    reason = "NOT_ALLOWED"


class OutcomeUnknown(ZapError):
    """WhatsApp did not answer in time, or the session's process ended: it may have been done."""

    reason = "WHATSAPP_SILENT"


class DataLoss(ZapError):
    """What was read or stored is not what it should be; discard it."""

    reason = "DATA_LOSS"


class Unauthenticated(ZapError):
    """The caller did not show that it may call."""

    reason = "UNAUTHENTICATED"


class Unavailable(ZapError):
    """Nothing was done; the same call may succeed after `retry_after` seconds."""

    reason = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float = 1.0,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after = retry_after


class ResourceExhausted(ZapError):
    """A limit is reached and nothing was done; the same call may succeed after `retry_after` seconds."""

    reason = "RESOURCE_EXHAUSTED"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float = 60.0,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after = retry_after


class LeaseLost(Unavailable):
    """This node no longer owns the session in this epoch; its write was refused."""

    reason = "LEASE_LOST"


class EpochRevoked(LeaseLost):
    """The epoch must end: the session was deactivated or restarted, perhaps activated again since.

    The node still has the lease, and replaces the process.
    """

    reason = "EPOCH_REVOKED"


def epoch_over(session_id: str, epoch: int, error: type[LeaseLost] = LeaseLost) -> LeaseLost:
    """Return the error for an epoch that may no longer write."""
    metadata = {"session_id": session_id, "epoch": str(epoch)}
    return error(f"epoch {epoch} of session {session_id!r} is over", metadata=metadata)


def session_not_found(session_id: str) -> NotFound:
    """Return the error for a session that does not exist."""
    return NotFound(
        f"there is no session {session_id!r}", reason="SESSION_NOT_FOUND", metadata={"session_id": session_id}
    )
