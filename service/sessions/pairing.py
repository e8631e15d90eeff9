"""Follows a pairing for whoever wants to show its codes, on any node: the codes are in Postgres, hints wake us."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

from service.domain.errors import FailedPrecondition, NotFound, Unavailable
from service.domain.pairing import PairingDelayed, PairingEnded, PairingOutcome, PairingStep, ShownCode
from service.domain.records import Pairing, Session
from service.domain.session import Credentials, Desired
from service.ports import SessionStore, Wakeups

PAIRING_POLL_S = 1.0
"""Seconds after which we look again without any hint."""


async def pairing_steps(store: SessionStore, wakeups: Wakeups, session_id: str) -> AsyncGenerator[PairingStep, None]:
    """The current code at once, or why there is none; then each change, then how it ended.

    Leaves nothing behind when it is closed.

    Raises, before the first step: NotFound, FailedPrecondition (SESSION_NOT_ACTIVE).
    """
    with wakeups.listen(session_id) as hints:
        session, pairing = await store.pairing(session_id)
        if session.condition.credentials is not Credentials.CONFIRMED and not _wanted(session):
            raise _not_active(session, pairing)
        told: PairingStep | None = None
        while (ended := _ended(session, pairing)) is None:
            if (step := _current(session, pairing)) is not None and step != told:
                told = step
                yield step
            await hints.wait(PAIRING_POLL_S)
            try:
                session, pairing = await store.pairing(session_id)
            except NotFound:
                yield PairingEnded(PairingOutcome.CANCELLED, "PAIRING_CANCELLED")
                return
            except Unavailable:
                # The stream outlives an outage of the database, and so may the attempt.
                continue
        yield ended


def _wanted(session: Session) -> bool:
    return session.condition.desired is Desired.ACTIVE


def _current(session: Session, pairing: Pairing) -> PairingStep | None:
    """A code to scan, or why there is none; None if the one comes soon and the other is not known."""
    if pairing.code is not None:
        return ShownCode(pairing.code) if pairing.code.expire_time > datetime.now(UTC) else None
    condition = session.condition
    # After a scan the reason may be one from before it; with an attempt to come it is not.
    if condition.reason and (condition.credentials is Credentials.NONE or condition.next_attempt is not None):
        return PairingDelayed(condition.reason, condition.next_attempt)
    return None


def _ended(session: Session, pairing: Pairing) -> PairingEnded | None:
    """How the pairing ended. While the session is wanted it has not: a newer attempt than ours is ours then."""
    if session.condition.credentials is Credentials.CONFIRMED:
        return PairingEnded(PairingOutcome.PAIRED)
    if _wanted(session) or pairing.outcome is None:
        # Not wanted and yet without an outcome: it was begun anew between our two looks.
        return None
    return PairingEnded(pairing.outcome, pairing.reason)


def _not_active(session: Session, pairing: Pairing) -> FailedPrecondition:
    last = f"; its last pairing ended {pairing.outcome.value} ({pairing.reason})" if pairing.outcome else ""
    return FailedPrecondition(
        f"session {session.session_id!r} is not active{last}: call Activate first",
        reason="SESSION_NOT_ACTIVE",
        metadata={
            "session_id": session.session_id,
            "state": session.condition.state.value,
            "last_outcome": pairing.outcome.value if pairing.outcome else "",
            "last_reason": pairing.reason,
        },
    )
