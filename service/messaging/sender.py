"""Sends messages: the intent is written down first, WhatsApp is asked once, and the outcome is written down."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from service.domain.errors import FailedPrecondition, NotFound, Unavailable
from service.domain.lease import Lease
from service.domain.records import MessageState, OutboundMessage, Outcome, Session
from service.domain.session import Credentials, Desired
from service.messaging.keyed_lock import KeyedLock
from service.ports import CallFailed, MessageStore, Metrics, SessionProcess, SessionStore
from service.sessions.early_receipts import EarlyReceipts
from service.sessions.registry import RunnerRegistry

log = structlog.get_logger(__name__)

SETTLE_POLL = 0.1
"""Seconds between two looks at a message that another call is sending."""
SETTLE_RETRY = 0.5
"""Seconds between two tries to write the outcome to a database that is away."""


@dataclass(frozen=True)
class ConnectedSession:
    """A session that is connected here: what to send through."""

    lease: Lease
    process: SessionProcess
    early_receipts: EarlyReceipts


@dataclass(frozen=True)
class SendRequest:
    """What a caller asks for."""

    request_id: str
    to: str = field(repr=False)
    body: str = field(repr=False)
    fingerprint: bytes


class MessageSender:
    """The use-cases of MessageService."""

    def __init__(
        self, sessions: SessionStore, messages: MessageStore, roster: RunnerRegistry, metrics: Metrics | None = None
    ) -> None:
        self._sessions = sessions
        self._metrics = metrics or Metrics()
        self._messages = messages
        self._roster = roster
        self._under_way: dict[asyncio.Task[OutboundMessage], str] = {}
        """What is being sent, and by which session."""
        self._turns = KeyedLock()
        self._doubtful: set[tuple[str, str]] = set()
        """Session and request_id of what was begun here and is not settled."""
        self._finishing = False
        self._paused: set[str] = set()
        """Sessions that are being handed over."""

    async def send_text(self, session_id: str, to: str, body: str, request_id: str, timeout: float) -> OutboundMessage:
        """Send a text to a JID, once per request_id; waits at most `timeout` seconds for WhatsApp's server."""
        deadline = time.monotonic() + timeout
        fingerprint = hashlib.sha256(f"text\0{to}\0{body}".encode()).digest()
        if self._finishing:
            raise Unavailable("this node is stopping; call again", reason="NODE_DRAINING")
        held = self._held(session_id)
        if held is None:
            # Only what was accepted before can be answered.
            earlier = await self._messages.find(session_id, request_id, fingerprint)
            if earlier is None:
                raise _cannot_send(await self._sessions.get(session_id))
            return await self._settled(earlier, deadline)
        # A caller who hangs up does not undo what WhatsApp has: from the intent on, the outcome is written down whoever
        # waits for it. An intent that was written with nobody left to carry it out would stay open for ever.
        intent = SendRequest(request_id, to, body, fingerprint)
        task = asyncio.create_task(self._accept_and_send(held, intent, deadline))
        self._under_way[task] = session_id
        task.add_done_callback(self._forget)
        return await self._settled(await asyncio.shield(task), deadline)

    async def get(self, session_id: str, request_id: str) -> OutboundMessage:
        """The message as it is now."""
        message = await self._messages.find(session_id, request_id, None)
        if message is None:
            await self._sessions.get(session_id)
            raise NotFound(
                f"session {session_id!r} has sent nothing under request_id {request_id!r}",
                reason="MESSAGE_NOT_FOUND",
                metadata={"session_id": session_id, "request_id": request_id},
            )
        return message

    async def finish(self, timeout: float) -> None:
        """Take no more, and wait for what is being sent; before its sessions step down."""
        self._finishing = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout)

    def is_sending(self, session_id: str) -> bool:
        """Something is being sent by a session, or waits for that."""
        return session_id in self._under_way.values()

    @asynccontextmanager
    async def paused(self, session_id: str, timeout: float) -> AsyncIterator[bool]:
        """Take no more for one session while the context lasts, and wait for what is being sent; before a hand-over.

        False: it takes longer than `timeout` seconds.
        """
        self._paused.add(session_id)
        try:
            if under_way := [task for task, by in self._under_way.items() if by == session_id]:
                await asyncio.wait(under_way, timeout=timeout)
            yield not self.is_sending(session_id)
        finally:
            # It may have stayed, or come back by now.
            self._paused.discard(session_id)

    def _held(self, session_id: str) -> ConnectedSession | None:
        runner = self._roster.get(session_id) if session_id not in self._paused else None
        connection = runner.connection if runner is not None else None
        return (
            ConnectedSession(*connection, runner.early_receipts)
            if runner is not None and connection is not None
            else None
        )

    async def _accept_and_send(self, held: ConnectedSession, intent: SendRequest, deadline: float) -> OutboundMessage:
        key = (held.lease.session_id, intent.request_id)
        async with self._turns.of(key):
            message, is_new = await self._messages.accept(held.lease, intent.request_id, intent.to, intent.fingerprint)
            # Accepted for this very process, and nobody here works on it: the answer to an earlier accept was lost.
            is_orphan = message.state is MessageState.ACCEPTED and message.epoch == held.lease.epoch
            if not is_new and (not is_orphan or key in self._doubtful):
                return message
            # Until it is settled: after a fault of ours it may have been sent, and is nobody's to send again.
            self._doubtful.add(key)
            try:
                message = await self._send(held, message, intent.body, deadline)
            except NotFound:
                # Deleted with its session: there is nothing left to be in doubt about.
                self._doubtful.discard(key)
                raise
            self._doubtful.discard(key)
            return message

    def _forget(self, task: asyncio.Task[OutboundMessage]) -> None:
        self._under_way.pop(task, None)
        if not task.cancelled():
            # Seen: if the caller has hung up there is nobody to tell, and nothing was done.
            task.exception()

    async def _send(
        self, held: ConnectedSession, message: OutboundMessage, body: str, deadline: float
    ) -> OutboundMessage:
        try:
            began = time.monotonic()
            reply = await held.process.send_text(message.to, body, max(0.1, deadline - began))
            self._metrics.sent(time.monotonic() - began)
        except CallFailed as error:
            if error.certain:
                outcome = Outcome(MessageState.FAILED, detail=str(error), failure=error.failure)
            else:
                outcome = Outcome(MessageState.OUTCOME_UNKNOWN, detail=str(error))
        else:
            outcome = Outcome(MessageState.SENT, reply.message_id, sent=reply.sent_time)
        message = await self._settle(message, outcome)
        early = held.early_receipts.pop(message.message_id)
        if early is not None:
            # The recipient was quicker than we were with writing down that it is sent.
            await self._messages.delivered(message.session_id, [message.message_id], early)
            message = await self.get(message.session_id, message.request_id)
        return message

    async def _settle(self, message: OutboundMessage, outcome: Outcome) -> OutboundMessage:
        """Write the outcome down, however long the database is away; if the node dies first, the next epoch does."""
        while True:
            try:
                return await self._messages.settle(message.session_id, message.request_id, outcome)
            except Unavailable as error:
                log.warning(
                    "The outcome of a message is written later.", session_id=message.session_id, **error.metadata
                )
                await asyncio.sleep(SETTLE_RETRY)

    async def _settled(self, message: OutboundMessage, deadline: float) -> OutboundMessage:
        """A message that another call is sending, once that one knows; as it is if it takes too long."""
        while message.state is MessageState.ACCEPTED and time.monotonic() < deadline:
            await asyncio.sleep(SETTLE_POLL)
            message = await self.get(message.session_id, message.request_id)
        return message


def _cannot_send(session: Session) -> FailedPrecondition | Unavailable:
    """Why a session that is not connected here cannot send, in the order in which a caller can mend it."""
    metadata = {"session_id": session.session_id, "state": session.condition.state.value}
    if session.condition.credentials is not Credentials.CONFIRMED:
        return FailedPrecondition(
            f"session {session.session_id!r} is not paired", reason="SESSION_NOT_PAIRED", metadata=metadata
        )
    if session.condition.desired is Desired.INACTIVE:
        return FailedPrecondition(
            f"session {session.session_id!r} is not active; call Activate first",
            reason="SESSION_NOT_ACTIVE",
            metadata=metadata,
        )
    return Unavailable(
        f"session {session.session_id!r} is not connected now; nothing was sent",
        reason="SESSION_NOT_CONNECTED",
        metadata=metadata,
    )
