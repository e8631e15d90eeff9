"""service.ports.SessionStore in memory; tests/contract/test_session_store.py holds that it behaves as Postgres does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from service.domain.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    session_not_found,
)
from service.domain.events import Event, PairingProgress, Payload, StateChanged
from service.domain.records import Account, Evidence, Pairing, Session, StoredCredentials
from service.domain.session import Condition, Credentials, Transition
from service.ports.sessions import Changes, Decide, NewSession, SessionFilter

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


@dataclass
class StoredSession:
    """A session with what is stored around it."""

    session: Session
    request: NewSession
    pairing: Pairing
    sequence: int = 0
    """Of its last event."""


class FakeSessionStore:
    """The sessions in a dictionary, on a clock that stands still."""

    def __init__(self) -> None:
        self.kept: dict[str, StoredSession] = {}
        self.broken: Exception | None = None
        """What every call raises, if anything."""

    async def create(self, new: NewSession) -> Session:
        self._maybe_break()
        earlier = next((one for one in self.kept.values() if one.request.request_id == new.request_id != ""), None)
        if earlier is not None:
            if earlier.request != new:
                wrong = f"was used for session {earlier.session.session_id!r} with another content"
                raise InvalidArgument([FieldViolation("request_id", wrong)], reason="REQUEST_ID_REUSED")
            return earlier.session
        if new.session_id in self.kept:
            raise AlreadyExists(
                f"there is a session {new.session_id!r} already",
                reason="SESSION_ALREADY_EXISTS",
                metadata={"session_id": new.session_id},
            )
        self.kept[new.session_id] = StoredSession(_new_session(new), new, Pairing(None, None))
        return self.kept[new.session_id].session

    async def get(self, session_id: str) -> Session:
        return self.of(session_id).session

    async def list(self, chosen: SessionFilter, after: str, limit: int) -> Sequence[Session]:
        self._maybe_break()
        sessions = [self.kept[key].session for key in sorted(self.kept) if key > after]
        return [session for session in sessions if _fits(session, chosen)][:limit]

    async def update(self, session_id: str, changes: Changes, etag: str) -> Session:
        stored = self.of(session_id)
        if etag and etag != stored.session.etag:
            raise Conflict("it has changed", metadata={"session_id": session_id, "etag": etag})
        given = {name: value for name, value in vars(changes).items() if value is not None}
        stored.session = replace(stored.session, **given, etag=_next(stored.session.etag))
        return stored.session

    async def delete(self, session_id: str, *, force: bool) -> None:
        stored = self.of(session_id)
        if stored.session.condition.credentials is not Credentials.NONE and not force:
            raise FailedPrecondition("it is paired", reason="SESSION_PAIRED", metadata={"session_id": session_id})
        del self.kept[session_id]

    async def decide(self, session_id: str, decide: Decide) -> tuple[Session, Transition, Sequence[Event]]:
        stored = self.of(session_id)
        before = stored.session.condition
        transition = decide(before, NOW)
        after = transition.condition
        etag = stored.session.etag if after.desired is before.desired else _next(stored.session.etag)
        stored.session = replace(stored.session, condition=after, etag=etag)
        if transition.starts_pairing:
            stored.pairing = Pairing(None, None)
        elif transition.outcome is not None:
            stored.pairing = Pairing(None, transition.outcome, after.reason)
        elif transition.invalidates_code:
            stored.pairing = replace(stored.pairing, code=None)
        new: list[Payload] = []
        if transition.outcome is not None:
            new.append(PairingProgress(outcome=transition.outcome, reason=after.reason))
        if (after.state, after.reason) != (before.state, before.reason):
            new.append(StateChanged(before.state, after.state, after.reason))
        events = [
            Event(number, session_id, number, NOW, payload) for number, payload in enumerate(new, stored.sequence + 1)
        ]
        stored.sequence += len(events)
        return stored.session, transition, events

    async def pairing(self, session_id: str) -> tuple[Session, Pairing]:
        stored = self.of(session_id)
        return stored.session, stored.pairing

    def of(self, session_id: str) -> StoredSession:
        """Raises NotFound."""
        self._maybe_break()
        if session_id not in self.kept:
            raise session_not_found(session_id)
        return self.kept[session_id]

    def _maybe_break(self) -> None:
        if self.broken is not None:
            raise self.broken


def _next(etag: str) -> str:
    return str(int(etag) + 1)


def _fits(session: Session, chosen: SessionFilter) -> bool:
    return (
        (not chosen.user_id or session.user_id == chosen.user_id)
        and (not chosen.states or session.condition.state in chosen.states)
        and chosen.labels.items() <= session.labels.items()
    )


def _new_session(new: NewSession) -> Session:
    return Session(
        session_id=new.session_id,
        name=new.name,
        user_id=new.user_id,
        labels=new.labels,
        proxy_url=new.proxy_url,
        condition=Condition(),
        account=Account(),
        owner=None,
        evidence=Evidence(),
        credentials=StoredCredentials(),
        create_time=NOW,
        update_time=NOW,
        etag="1",
    )
