"""The core without Postgres, WhatsApp or an owner: the real SessionService over a store in memory."""

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self, cast
from uuid import UUID

from service.api.grpc.services import Core
from service.bus.hub import WakeupHub
from service.domain.caller import Caller
from service.domain.errors import FieldViolation, InvalidArgument
from service.domain.lease import Lease
from service.domain.media import MediaKind, MediaLimits, StoredMedia
from service.domain.pairing import PairingCode, PairingDelayed, PairingEnded, PairingOutcome, PairingStep, ShownCode
from service.domain.records import (
    Account,
    Evidence,
    NewMessage,
    OutboundMessage,
    Owner,
    Pairing,
    Session,
    StoredCredentials,
    TypedPayload,
)
from service.domain.session import Condition, Credentials, Desired, State
from service.domain.watch import Bookmark, Delivered, EventFilter, LoggedEvent, StartPosition, Step
from service.media.downloads import Downloads
from service.media.http import MediaHttpClient
from service.media.uploads import Uploads
from service.messaging.sender import MessageSender
from service.ports.processes import CallFailed, SendReply
from service.sessions.early_receipts import EarlyReceipts
from service.sessions.number_checks import NumberChecker
from service.sessions.process_calls import ProcessCalls
from service.sessions.registry import RunnerRegistry
from service.sessions.service import SessionService
from tests.fakes.contact_store import FakeContactStore
from tests.fakes.message_store import FakeMessageStore
from tests.fakes.session_store import NOW, FakeSessionStore, StoredSession

NODE = UUID(int=1)
NUMBER_CHECKS_PER_HOUR = 100


class FakeOwner:
    """The runners of all sessions of a store, and their processes: WhatsApp takes everything, unless a test refuses."""

    def __init__(self, store: FakeSessionStore) -> None:
        self._store = store
        self.refuses_to_send: CallFailed | None = None
        self.holds_sends = False
        self.sent: list[TypedPayload] = []
        self.refuses_calls: CallFailed | None = None
        self.calls: list[TypedPayload] = []
        """The requests of `call`, in order."""
        self.uploaded: list[bytes] = []
        self.waiting_uploads = 0
        self.answers_uploads = asyncio.Event()
        self.answers_uploads.set()
        self.results: dict[str, TypedPayload] = {}
        """The result of a call, by the full name of its request."""
        self.answers: dict[TypedPayload, TypedPayload | CallFailed] = {}
        """The result or the failure of one request, in place of that in `results`."""

    def get(self, session_id: str) -> "FakeRunner | None":
        stored = self._store.kept.get(session_id)
        return FakeRunner(self, stored.session) if stored is not None else None

    async def log_out(self, timeout: float) -> None:
        pass

    async def request_pairing_code(self, phone: str, timeout: float) -> str:
        return "ABCD-2345"

    async def call(self, request: TypedPayload, timeout: float) -> TypedPayload:
        if self.refuses_calls is not None:
            raise self.refuses_calls
        self.calls.append(request)
        answer = self.answers.get(request) or self.results[request.kind]
        if isinstance(answer, CallFailed):
            raise answer
        return answer

    async def upload(self, kind: MediaKind, descriptor: int, size: int, timeout: float) -> StoredMedia:
        """Keep the file, as WhatsApp would."""
        self.last_timeout = timeout
        if self.refuses_calls is not None:
            raise self.refuses_calls
        self.waiting_uploads += 1
        await self.answers_uploads.wait()
        data = os.pread(descriptor, size, 0)
        self.uploaded.append(data)
        sha256 = hashlib.sha256(data).digest()
        return StoredMedia(kind, "/v/t62/1_n.enc?oh=1", bytes(32), bytes(32), sha256, len(data))

    async def send(self, to: str, content: TypedPayload, timeout: float, secret: bytes = b"") -> SendReply:
        if self.holds_sends:
            await asyncio.Event().wait()
        if self.refuses_to_send is not None:
            raise self.refuses_to_send
        self.sent.append(content)
        return SendReply(f"3EB0{len(self.sent)}", NOW, to.replace("@s.whatsapp.net", "@lid"))


class FakeRunner:
    """What sessions.runner.Runner shows of a session."""

    def __init__(self, owner: FakeOwner, session: Session) -> None:
        there = (Lease(session.session_id, 3, NODE), owner)
        self.connection = there if session.condition.state is State.CONNECTED else None
        self.pairing = there if session.condition.state is State.PAIRING else None
        self.early_receipts = EarlyReceipts()

    def restart(self) -> None:
        pass


class FakePublisher:
    """Passes hints on in this process."""

    def __init__(self, hub: WakeupHub) -> None:
        self._hub = hub

    def publish(self, events: Any) -> None:
        pass

    def wake(self, session_id: str) -> None:
        self._hub.wake(session_id)

    def notify_work(self) -> None:
        self._hub.notify_work()


class FakeSessions(SessionService):
    """The real service; a test says what owner and phone do. Everything happens on the loop of the server."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        """On whose behalf it was asked, one for each call."""
        self.store = FakeSessionStore()
        self.hub = WakeupHub()
        self.open_pairings = 0
        """How many streams follow a pairing."""
        self.given: list[PairingStep] = []
        """What streams of pairings got, in order."""
        self.owner = FakeOwner(self.store)
        super().__init__(self.store, FakePublisher(self.hub), self.hub, cast(RunnerRegistry, self.owner))

    def of(self, caller: Caller) -> Self:
        """Return these sessions, the same for every caller."""
        self.callers.append(caller)
        return self

    @property
    def kept(self) -> dict[str, StoredSession]:
        return self.store.kept

    async def pairing_steps(self, session_id: str) -> AsyncGenerator[PairingStep, None]:
        self.open_pairings += 1
        try:
            async with aclosing(super().pairing_steps(session_id)) as steps:
                async for step in steps:
                    self.given.append(step)
                    yield step
        finally:
            self.open_pairings -= 1

    def tell(self, session_id: str, step: PairingStep) -> None:
        """Have the owner write that a pairing goes a step further."""
        stored = self.store.of(session_id)
        condition = stored.session.condition
        match step:
            case ShownCode(shown):
                stored.pairing = Pairing(shown, None)
            case PairingDelayed(reason, next_attempt):
                condition = replace(condition, reason=reason, next_attempt=next_attempt)
                stored.pairing = Pairing(None, None)
            case PairingEnded(outcome, reason):
                condition = replace(condition, desired=Desired.INACTIVE, state=State.UNPAIRED, reason=reason)
                stored.pairing = Pairing(None, outcome, reason)
        stored.session = replace(stored.session, condition=condition)
        self.hub.wake(session_id)

    def pair(self, session_id: str) -> None:
        """Have a phone scan the code, and the session connect."""
        stored = self.store.of(session_id)
        connected = Condition(Desired.ACTIVE, State.CONNECTED, credentials=Credentials.CONFIRMED)
        stored.session = replace(
            stored.session,
            condition=connected,
            account=Account("4917612345678:3@s.whatsapp.net", "123@lid", "Ada", "android"),
            owner=Owner("node-1", 3, NOW + timedelta(seconds=10)),
            evidence=Evidence(last_connected=NOW),
            credentials=StoredCredentials(1234, NOW),
        )
        stored.pairing = Pairing(None, PairingOutcome.PAIRED)
        self.hub.wake(session_id)


class FakeSending(MessageSender):
    """The real sender over a store in memory, the same for every caller."""

    def __init__(self, sessions: FakeSessions) -> None:
        self.store = FakeMessageStore()
        self.callers: list[Caller] = []
        owner = cast(RunnerRegistry, sessions.owner)
        super().__init__(lambda _: sessions.store, lambda _: self.store, self.store, owner)

    async def send(self, caller: Caller, session_id: str, new: NewMessage, timeout: float) -> OutboundMessage:
        self.callers.append(caller)
        return await super().send(caller, session_id, new, timeout)

    async def get(self, caller: Caller, session_id: str, request_id: str) -> OutboundMessage:
        self.callers.append(caller)
        return await super().get(caller, session_id, request_id)


class FakeCalls(ProcessCalls):
    """The real calls, to the process of the fake owner."""

    def __init__(self, sessions: FakeSessions) -> None:
        super().__init__(lambda _: sessions.store, cast(RunnerRegistry, sessions.owner))


def fake_media(
    sessions: FakeSessions, limits: MediaLimits | None = None, http: MediaHttpClient | None = None
) -> tuple[Uploads, Downloads]:
    """Return the real uploads and downloads, to the processes of the fake owner and from `http`."""
    registry, limits = cast(RunnerRegistry, sessions.owner), limits or media_limits()
    return (
        Uploads(lambda _: sessions.store, registry, limits),
        Downloads(lambda _: sessions.store, http or MediaHttpClient(), limits, retry_s=0.01),
    )


def media_limits(**changed: Any) -> MediaLimits:
    """Small limits, but for what a test changes."""
    limits = MediaLimits(
        dict.fromkeys(MediaKind, 4_000_000),
        largest_still_sticker=100_000,
        largest_download=8_000_000,
        upload_memory=6_000_000,
        downloads=4,
        timeout=20,
    )
    return replace(limits, **changed)


def core_of(
    sessions: FakeSessions,
    *,
    sending: FakeSending | None = None,
    watching: "FakeWatching | None" = None,
    contacts: FakeContactStore | None = None,
    media: tuple[Uploads, Downloads] | None = None,
) -> Core:
    """All that servicers call, over these sessions."""
    people = contacts or FakeContactStore(sessions.store)
    return Core(
        sessions.of,
        sending or FakeSending(sessions),
        (watching or FakeWatching()).watch,
        FakeCalls(sessions),
        lambda _: people,
        NumberChecker(NUMBER_CHECKS_PER_HOUR),
        *(media or fake_media(sessions)),
    )


def code(position: int = 1) -> PairingCode:
    """A code of the form WhatsApp's have, and of their length; it is shown for a minute from now."""
    key = "A" * 43 + "="
    expire_time = datetime.now(UTC) + timedelta(seconds=60)
    return PairingCode(f"2@{'b' * 80},{key},{key},{position}{'C' * 42}=,1", position, expire_time)


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
