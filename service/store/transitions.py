"""Writes a transition in one transaction: the condition, the pairing, the device and the events."""

from datetime import datetime

from service.domain.errors import session_not_found
from service.domain.events import NewEvent, PairingProgress, StateChanged
from service.domain.records import Session
from service.domain.session import Condition, Transition
from service.ports.sessions import Decide
from service.store import rows
from service.store.database import Connection, Record


async def lock_session(connection: Connection, session_id: str) -> Record:
    """Lock and return the session's row. Raises NotFound."""
    row = await connection.row("lock_session", session_id)
    if row is None:
        raise session_not_found(session_id)
    return row


async def read_session(connection: Connection, session_id: str) -> Session:
    """Return the session as it is now. Raises NotFound."""
    row = await connection.row("get_session", session_id)
    if row is None:
        raise session_not_found(session_id)
    return rows.session(row)


async def write_transition(
    connection: Connection, session_id: str, row: Record, decide: Decide
) -> tuple[Transition, list[NewEvent]]:
    """Write the transition that `decide` returns for a locked row; return it with the events to append."""
    before = rows.condition(row)
    transition = decide(before, row["now"])
    after = transition.condition
    if after != before:
        await connection.run(
            "write_condition",
            session_id,
            after.desired.value,
            after.state.value,
            after.reason,
            after.credentials.value,
            after.attempts,
            after.next_attempt,
            after.replaced_at,
            after.desired is not before.desired,
        )
    if transition.deletes_credentials:
        await connection.run("discard_identity", session_id)
        await connection.run("unbind_device", session_id)
    if transition.starts_pairing:
        await connection.run("begin_pairing", session_id)
    elif transition.outcome is not None:
        await connection.run("end_pairing", session_id, transition.outcome.value, after.reason)
    elif transition.invalidates_code:
        await connection.run("hide_code", session_id)
    return transition, _events_of(before, transition, row["now"])


def _events_of(before: Condition, transition: Transition, now: datetime) -> list[NewEvent]:
    """Return a transition's events: first the pairing's outcome, then the state."""
    after = transition.condition
    events = []
    if transition.outcome is not None:
        events.append(NewEvent(PairingProgress(outcome=transition.outcome, reason=after.reason), now))
    if (after.state, after.reason) != (before.state, before.reason):
        events.append(NewEvent(StateChanged(before.state, after.state, after.reason), now))
    return events
