"""The core in memory: the domain's own reducer over a dictionary, so states follow from wishes as they do for real."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Self

from service.domain.caller import Caller
from service.domain.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    Unavailable,
    session_not_found,
)
from service.domain.pairing import PairingCode, PairingEnded, PairingOutcome, PairingStep, ShownCode
from service.domain.records import (
    Account,
    Evidence,
    MessageState,
    NewMessage,
    OutboundMessage,
    Owner,
    Session,
    StoredCredentials,
)
from service.domain.send_failures import SendFailure
from service.domain.session import (
    Activate,
    Condition,
    Credentials,
    Deactivate,
    Desired,
    Input,
    LoggedOutByCaller,
    State,
    reduce,
)
from service.domain.watch import Bookmark, Delivered, EventFilter, LoggedEvent, StartPosition, Step
from service.messaging.sender import MessageSender
from service.ports.sessions import Changes, NewSession, SessionFilter
from service.sessions.service import SessionService

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


@dataclass
class Kept:
    """A session with what is stored around it."""

    session: Session
    request: NewSession
    step: PairingStep | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class FakeSessions(SessionService):
    """The sessions in a dictionary, the same for every caller. Everything happens on the loop of the server."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        """On whose behalf it was asked, one for each call."""
        self.kept: dict[str, Kept] = {}
        self.open_pairings = 0
        self.broken: Exception | None = None
        """What every call raises, if anything."""

    def of(self, caller: Caller) -> Self:
        """These sessions."""
        self.callers.append(caller)
        return self

    async def create(self, new: NewSession) -> Session:
        self._maybe_break()
        for kept in self.kept.values():
            if new.request_id and kept.request.request_id == new.request_id:
                return kept.session
        session_id = new.session_id or f"s-{len(self.kept)}"
        if (kept_already := self.kept.get(session_id)) is not None:
            if replace(kept_already.request, request_id="") == replace(new, request_id=""):
                return kept_already.session
            raise AlreadyExists(
                f"session {session_id!r} exists already", reason="SESSION_EXISTS", metadata={"session_id": session_id}
            )
        self.kept[session_id] = Kept(_new_session(session_id, new), new)
        return self.kept[session_id].session

    async def activate(self, session_id: str) -> Session:
        return self._change(session_id, Activate())

    async def deactivate(self, session_id: str) -> Session:
        session = self._change(session_id, Deactivate())
        if isinstance(self.kept[session_id].step, ShownCode):
            self.tell(session_id, PairingEnded(PairingOutcome.CANCELLED, "PAIRING_CANCELLED"))
        return session

    async def restart(self, session_id: str) -> Session:
        session = self._get(session_id).session
        self._need(session, session.condition.desired is Desired.ACTIVE, "SESSION_NOT_ACTIVE")
        return session

    async def status(self, session_id: str) -> Session:
        return self._get(session_id).session

    async def log_out(self, session_id: str, timeout: float) -> Session:
        session = self._get(session_id).session
        self._need(session, session.condition.credentials is Credentials.CONFIRMED, "SESSION_NOT_PAIRED")
        return self._change(session_id, LoggedOutByCaller())

    async def list(self, chosen: SessionFilter, after: str, limit: int) -> Sequence[Session]:
        self._maybe_break()
        return [self.kept[key].session for key in sorted(self.kept) if key > after and self._fits(key, chosen)][:limit]

    async def update(self, session_id: str, changes: Changes, etag: str) -> Session:
        kept = self._get(session_id)
        if etag and etag != kept.session.etag:
            raise Conflict("somebody changed it first", metadata={"session_id": session_id})
        given = {name: value for name, value in vars(changes).items() if value is not None}
        kept.session = replace(kept.session, **given, etag=str(int(kept.session.etag) + 1))
        return kept.session

    async def delete(self, session_id: str, *, force: bool) -> None:
        session = self._get(session_id).session
        self._need(session, force or session.condition.credentials is not Credentials.CONFIRMED, "SESSION_PAIRED")
        del self.kept[session_id]

    async def request_pairing_code(self, session_id: str, phone: str, timeout: float) -> tuple[str, datetime]:
        session = self._get(session_id).session
        self._need(session, session.condition.state is State.PAIRING, "NOT_PAIRING")
        return "ABCD-2345", NOW + timedelta(minutes=2)

    async def pairing_steps(self, session_id: str) -> AsyncGenerator[PairingStep, None]:
        kept = self._get(session_id)
        if kept.session.condition.credentials is Credentials.CONFIRMED:
            yield PairingEnded(PairingOutcome.PAIRED)
            return
        self._need(kept.session, kept.session.condition.desired is Desired.ACTIVE, "SESSION_NOT_ACTIVE")
        self.open_pairings += 1
        try:
            shown = None
            while True:
                # The step may have changed while the one before was on its way.
                if kept.step is not None and kept.step is not shown:
                    shown = kept.step
                    yield shown
                    if isinstance(shown, PairingEnded):
                        return
                else:
                    await kept.changed.wait()
        finally:
            self.open_pairings -= 1

    def tell(self, session_id: str, step: PairingStep) -> None:
        """Have a pairing go a step further."""
        kept = self.kept[session_id]
        kept.step = step
        kept.changed.set()
        kept.changed = asyncio.Event()

    def pair(self, session_id: str) -> None:
        """Have a phone scan the code, and the session connect."""
        kept = self.kept[session_id]
        connected = Condition(Desired.ACTIVE, State.CONNECTED, credentials=Credentials.CONFIRMED)
        kept.session = replace(
            kept.session,
            condition=connected,
            account=Account("4917612345678:3@s.whatsapp.net", "123@lid", "Ada", "android"),
            owner=Owner("node-1", 3, NOW + timedelta(seconds=10)),
            evidence=Evidence(last_connected=NOW),
            credentials=StoredCredentials(1234, NOW),
        )
        self.tell(session_id, PairingEnded(PairingOutcome.PAIRED))

    def _change(self, session_id: str, wish: Input) -> Session:
        kept = self._get(session_id)
        kept.session = replace(kept.session, condition=reduce(kept.session.condition, wish, NOW).condition)
        return kept.session

    def _get(self, session_id: str) -> Kept:
        self._maybe_break()
        if session_id not in self.kept:
            raise session_not_found(session_id)
        return self.kept[session_id]

    def _maybe_break(self) -> None:
        if self.broken is not None:
            raise self.broken

    def _need(self, session: Session, fulfilled: bool, reason: str) -> None:
        if not fulfilled:
            state = session.condition.state.value
            raise FailedPrecondition(
                f"session {session.session_id!r} is {state}",
                reason=reason,
                metadata={"session_id": session.session_id, "state": state},
            )

    def _fits(self, session_id: str, chosen: SessionFilter) -> bool:
        session = self.kept[session_id].session
        return (
            (not chosen.user_id or session.user_id == chosen.user_id)
            and (not chosen.states or session.condition.state in chosen.states)
            and chosen.labels.items() <= session.labels.items()
        )


class FakeSending(MessageSender):
    """Sending: WhatsApp takes everything at once, except what a test says it does not."""

    def __init__(self, sessions: FakeSessions) -> None:
        self._known = sessions
        self.sent: dict[tuple[str, str], tuple[OutboundMessage, NewMessage]] = {}
        self.next_state = MessageState.SENT
        self.next_failure: SendFailure | None = None
        self.last_timeout = 0.0
        self.callers: list[Caller] = []

    async def send(self, caller: Caller, session_id: str, new: NewMessage, timeout: float) -> OutboundMessage:
        self.last_timeout, request_id = timeout, new.request_id
        self.callers.append(caller)
        session = await self._known.status(session_id)
        if (session_id, request_id) in self.sent:
            message, earlier = self.sent[session_id, request_id]
            if earlier.fingerprint != new.fingerprint:
                violation = FieldViolation("request_id", "was used for another message")
                raise InvalidArgument([violation], reason="REQUEST_ID_REUSED")
            return message
        if session.condition.credentials is not Credentials.CONFIRMED:
            raise FailedPrecondition("not paired", reason="SESSION_NOT_PAIRED", metadata={"session_id": session_id})
        if session.condition.state is not State.CONNECTED:
            raise Unavailable("not connected", reason="SESSION_NOT_CONNECTED", metadata={"session_id": session_id})
        message_id, sent_time = ("3EB0", NOW) if self.next_state is MessageState.SENT else ("", None)
        message = OutboundMessage(
            session_id, request_id, new.to, 1, self.next_state, message_id, "", NOW, sent_time, NOW
        )
        message = replace(message, failure=self.next_failure)
        self.sent[session_id, request_id] = (message, new)
        return message

    async def get(self, caller: Caller, session_id: str, request_id: str) -> OutboundMessage:
        self.callers.append(caller)
        await self._known.status(session_id)
        if (session_id, request_id) not in self.sent:
            raise NotFound(
                f"no message {request_id!r}",
                reason="MESSAGE_NOT_FOUND",
                metadata={"session_id": session_id, "request_id": request_id},
            )
        return self.sent[session_id, request_id][0]


def code(position: int = 1) -> PairingCode:
    """A code of the form WhatsApp's have, and of their length."""
    key = "A" * 43 + "="
    return PairingCode(f"2@{'b' * 80},{key},{key},{position}{'C' * 42}=,1", position, NOW + timedelta(seconds=60))


def _new_session(session_id: str, new: NewSession) -> Session:
    return Session(
        session_id=session_id,
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


class FakeWatching:
    """A Watch over a list: what is in it, and then nothing, for ever."""

    def __init__(self) -> None:
        self.logged: list[LoggedEvent] = []
        self.open_streams = 0
        self.callers: list[Caller] = []
        self.broken: Exception | None = None

    async def watch(self, wanted: EventFilter, start: StartPosition) -> AsyncGenerator[Step, None]:
        """Tokens are the numbers of events."""
        self.callers.append(wanted.caller)
        if self.broken is not None:
            raise self.broken
        if start.token and not start.token.isdecimal():
            raise InvalidArgument([FieldViolation("resume_token", "is not ours")], reason="RESUME_TOKEN_INVALID")
        first = 0 if start.is_oldest else int(start.token or len(self.logged))
        self.open_streams += 1
        try:
            yield Bookmark(str(first), is_caught_up=False)
            there = self.logged[first:]
            for number, event in enumerate(there, first + 1):
                if wanted.passes(event):
                    yield Delivered(event, str(number))
            # Of what was given: more may have been logged meanwhile.
            yield Bookmark(str(first + len(there)), is_caught_up=True, read_time=NOW)
            await asyncio.Event().wait()
        finally:
            self.open_streams -= 1
