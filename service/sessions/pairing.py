"""Follows a pairing on any node, so that its codes can be shown. The codes are in Postgres; hints announce changes."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

from service.domain.errors import FailedPrecondition, NotFound, Unavailable
from service.domain.pairing import PairingDelayed, PairingEnded, PairingOutcome, PairingStep, ShownCode
from service.domain.records import Pairing, Session
from service.domain.session import Credentials, Desired
from service.ports.bus import Wakeups
from service.ports.sessions import SessionStore

PAIRING_POLL_S = 1.0
"""Seconds after which the pairing is read again without a hint."""


async def pairing_steps(store: SessionStore, wakeups: Wakeups, session_id: str) -> AsyncGenerator[PairingStep, None]:
    """Yield the current code at once, or why there is none; then each change; then how the pairing ended.

    Raises NotFound or FailedPrecondition (SESSION_NOT_ACTIVE) before the first step.
    """
    with wakeups.listen(session_id) as hints:
        session, pairing = await store.pairing(session_id)
        if session.condition.credentials is not Credentials.CONFIRMED and not _is_desired(session):
            raise _not_active(session, pairing)
        sent: PairingStep | None = None
        while (ended := _ended(session, pairing)) is None:
            if (step := _current(session, pairing)) is not None and step != sent:
                sent = step
                yield step
            await hints.wait(PAIRING_POLL_S)
            try:
                session, pairing = await store.pairing(session_id)
            except NotFound:
                yield PairingEnded(PairingOutcome.CANCELLED, "PAIRING_CANCELLED")
                return
            except Unavailable:
                # The stream survives an outage of the database, and the attempt may, too.
                continue
        yield ended


def _is_desired(session: Session) -> bool:
    return session.condition.desired is Desired.ACTIVE


def _current(session: Session, pairing: Pairing) -> PairingStep | None:
    """Return the code to scan, or why there is none; None if that is not known, as before the first code."""
    if pairing.code is not None:
        return ShownCode(pairing.code) if pairing.code.expire_time > datetime.now(UTC) else None
    condition = session.condition
    # After a scan the reason may be from before it. If another attempt is planned, it is not.
    if condition.reason and (condition.credentials is Credentials.NONE or condition.next_attempt is not None):
        return PairingDelayed(condition.reason, condition.next_attempt)
    return None


def _ended(session: Session, pairing: Pairing) -> PairingEnded | None:
    """Return how the pairing ended. It has not while the session is to be active: then a newer attempt is followed."""
    if session.condition.credentials is Credentials.CONFIRMED:
        return PairingEnded(PairingOutcome.PAIRED)
    if _is_desired(session) or pairing.outcome is None:
        # If it is not active and has no outcome, a new attempt was begun between two reads.
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
