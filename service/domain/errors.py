"""Everything that can go wrong for a caller, as one tree.

    ZapError
     ├─ InvalidArgument           the request is wrong, and will be wrong again
     ├─ NotFound                  no such session, or message
     ├─ AlreadyExists             the id is taken by something else
     ├─ FailedPrecondition        right request, wrong state
     ├─ Conflict                  somebody else was faster (an etag)
     ├─ OutOfRange                a place in the log that is not there, or not any more
     ├─ ConsumerTooSlow           events come faster than they are taken
     └─ Unavailable               try again; nothing was done
         └─ LeaseLost             this node no longer owns the session it was working for
             └─ EpochRevoked      … or still does, but for a wish that was withdrawn

Each carries a `reason` in UPPER_SNAKE that is fixed for ever, a sentence, and `metadata` with every value that the
sentence mentions. `service.api.grpc.errors` is the only place that knows gRPC's codes for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request that is wrong: its path in the request, and what would be right."""

    field: str
    description: str


class ZapError(Exception):
    """Something a caller is told about."""

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
    """There is no such thing."""

    reason = "NOT_FOUND"


class AlreadyExists(ZapError):
    """The id is taken by something else."""

    reason = "ALREADY_EXISTS"


class FailedPrecondition(ZapError):
    """The request is right, the state is not; metadata names the state and what would do."""

    reason = "FAILED_PRECONDITION"


class Conflict(ZapError):
    """Somebody else changed it first; read it again."""

    reason = "ETAG_MISMATCH"


class OutOfRange(ZapError):
    """A place in the event log that is not there any more, or never was; metadata has one that is."""

    reason = "RESUME_TOKEN_EXPIRED"


class ConsumerTooSlow(ZapError):
    """Events come faster than they are taken; metadata has the place of the last one that was."""

    reason = "CONSUMER_TOO_SLOW"


class Unauthenticated(ZapError):
    """The caller did not show that it may call."""

    reason = "UNAUTHENTICATED"


class Unavailable(ZapError):
    """Not now; nothing was done, the same call may succeed after `retry_after` seconds."""

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


class LeaseLost(Unavailable):
    """This node is not the owner of the session under this epoch any more; what it was about to write was refused."""

    reason = "LEASE_LOST"


class EpochRevoked(LeaseLost):
    """The wish that this start of the session served was withdrawn; the session is perhaps wanted by another start.

    The lease is still this node's: its process is to be replaced, not fenced off.
    """

    reason = "EPOCH_REVOKED"


def epoch_over(session_id: str, epoch: int, error: type[LeaseLost] = LeaseLost) -> LeaseLost:
    """The one way to say that an epoch may not write any more."""
    metadata = {"session_id": session_id, "epoch": str(epoch)}
    return error(f"epoch {epoch} of session {session_id!r} is over", metadata=metadata)


def session_not_found(session_id: str) -> NotFound:
    """The one way to say that a session does not exist."""
    return NotFound(
        f"there is no session {session_id!r}", reason="SESSION_NOT_FOUND", metadata={"session_id": session_id}
    )
