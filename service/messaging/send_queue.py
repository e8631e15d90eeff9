"""Sends the messages of one session one after another.

WhatsApp's library has one lock for all sends of a session, held from before the encryption until the server's
acknowledgement. What waits behind that lock may leave minutes after its caller has given up. So at most one message is
in the library, and all others wait in the database: they certainly did not leave.

    accept ──▶ begun ──▶ the process sends ──▶ settled
      └─▶ queued ─▶ begin_next ─┘    └─▶ queued again, if it certainly did not leave
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from service.domain.call_failures import CallFailure
from service.domain.errors import LeaseLost, NotFound, Unavailable
from service.domain.lease import Lease
from service.domain.records import BegunMessage, MessageState, NewMessage, OutboundMessage, Outcome
from service.domain.send_failures import SendFailure
from service.messaging.keyed_lock import KeyedLock
from service.messaging.send_rate import SendRate
from service.ports.messages import MessageStore, SendQueueStore
from service.ports.metrics import Metrics
from service.ports.processes import CallFailed, SessionProcess
from service.sessions.runner import Runner

log = structlog.get_logger(__name__)

_Result = TypeVar("_Result")
Settled = asyncio.Future[OutboundMessage]

SEND_TIMEOUT_S = 110.0
"""Seconds for a process to send a message: 25 of typing, and the library's own limit of 75 for the server's answer."""
RETRY_S = 0.5
"""Seconds between two attempts to write while the database is away."""
_SECRET_BYTES = 32


@dataclass(frozen=True)
class ConnectedSession:
    """Holds what is needed to send through a session that is connected on this node."""

    lease: Lease
    process: SessionProcess
    runner: Runner


class SendQueue:
    """The messages of one session in one epoch."""

    def __init__(self, session: ConnectedSession, store: SendQueueStore, rate: SendRate, metrics: Metrics) -> None:
        self.session = session
        self._rate = rate
        self._store = store
        self._metrics = metrics
        self._is_taken = False
        """A message is begun, or is about to be."""
        self._is_paused = False
        self._has_news = False
        """A message may wait that the last look did not find."""
        self._begun: set[str] = set()
        """The request_ids that were passed to the process and are not settled. They must not be passed again."""
        self._sending: asyncio.Task[None] | None = None
        self._locks = KeyedLock()
        self._outcomes: dict[str, Settled] = {}
        """By request_id, of the messages that were accepted here and are not settled."""

    @property
    def is_sending(self) -> bool:
        """Return whether a message is begun."""
        return self._is_taken

    async def put(self, messages: MessageStore, new: NewMessage) -> tuple[OutboundMessage, "Settled | None"]:
        """Store a message, and send it after those before it. Return it, or the earlier one of its request_id.

        With it comes a future of the message as it is once it is settled in this epoch, if it was accepted here.
        """
        # Otherwise a second call could take the row of the first, whose answer is on its way, for an unstarted one.
        async with self._locks.acquire(new.request_id):
            return await self._put(messages, new)

    async def _put(self, messages: MessageStore, new: NewMessage) -> tuple[OutboundMessage, "Settled | None"]:
        begin = not (self._is_taken or self._is_paused or self._rate.delay(time.monotonic()))
        self._is_taken |= begin
        begun = None
        try:
            secret = secrets.token_bytes(_SECRET_BYTES)
            message, is_new = await messages.accept(self.session.lease, new, secret, begin=begin)
            if is_new:
                self._outcomes[message.request_id] = asyncio.get_running_loop().create_future()
            settled = self._outcomes.get(message.request_id)
            if is_new and not message.is_queued:
                begun = BegunMessage(message, new.content, secret)
            elif self._is_unstarted(message):
                # The answer to its accept was lost, so no call passes it on.
                await self._store.requeue(self.session.lease, message.request_id)
        finally:
            self._is_taken &= not begin
            if begun is not None:
                self._begun.add(begun.message.request_id)
            self.wake(begun)
        return message, settled

    def wake(self, begun: BegunMessage | None = None) -> None:
        """Send this message, and then all that wait; if one is being sent already, look again after it."""
        self._has_news = True
        if begun is not None or not (self._is_taken or self._is_paused):
            self._is_taken = True
            self._sending = asyncio.create_task(self._run(begun), name=f"send-{self.session.lease.session_id}")

    async def pause(self, timeout: float) -> bool:
        """Begin no further message. Wait `timeout` seconds for the current one; return whether it is done."""
        self._is_paused = True
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=timeout)
        return not self._is_taken

    def resume(self) -> None:
        """Go on after a pause."""
        self._is_paused = False
        self.wake()

    def _is_unstarted(self, message: OutboundMessage) -> bool:
        return (
            message.state is MessageState.ACCEPTED
            and not message.is_queued
            and message.epoch == self.session.lease.epoch
            and message.request_id not in self._begun
        )

    async def _run(self, begun: BegunMessage | None) -> None:
        """Send until none waits, or the session can send no more."""
        try:
            while begun is not None or (begun := await self._next()) is not None:
                self._begun.add(begun.message.request_id)
                if not await self._send(begun):
                    return
                begun = None
        except NotFound:
            # The session was deleted, with its messages.
            return
        except (LeaseLost, Unavailable) as error:
            log.info("The session sends no more on this node.", session_id=self._session_id, cause=error.message)
        except Exception:
            log.exception("Unexpected error while sending.", session_id=self._session_id)
        finally:
            self._is_taken = False

    async def _next(self) -> BegunMessage | None:
        while self._has_news and not self._is_paused and self._is_connected:
            if (delay := self._rate.delay(time.monotonic())) > 0:
                asyncio.get_running_loop().call_later(delay, self.wake)
                return None
            self._has_news = False
            if (begun := await self._store.begin_next(self.session.lease)) is not None:
                self._has_news = True
                return begun
        return None

    @property
    def _session_id(self) -> str:
        return self.session.lease.session_id

    @property
    def _is_connected(self) -> bool:
        connection = self.session.runner.connection
        return connection is not None and connection[1] is self.session.process

    async def _send(self, begun: BegunMessage) -> bool:
        """Send a message and write its outcome. Return whether the next one may follow."""
        message = begun.message
        began = time.monotonic()
        self._rate.take(began)
        try:
            reply = await self.session.process.send(message.to, begun.content, SEND_TIMEOUT_S, begun.secret)
        except CallFailed as error:
            return await self._fail(message, error)
        self._metrics.sent(time.monotonic() - began)
        self._rate.succeeded()
        await self._settle(message, Outcome(MessageState.SENT, reply.message_id, sent=reply.sent_time, chat=reply.chat))
        return True

    async def _fail(self, message: OutboundMessage, error: CallFailed) -> bool:
        if error.certain and (not error.is_answer or error.kind == CallFailure.SESSION_NOT_CONNECTED.value):
            # Nothing left. It is sent when the session is connected again.
            await self._until_written(lambda: self._store.requeue(self.session.lease, message.request_id))
            self._begun.discard(message.request_id)
            return False
        if error.certain:
            if error.failure is SendFailure.RATE_LIMITED:
                pause = self._rate.refused(time.monotonic())
                self._metrics.send_paused()
                log.warning(
                    "WhatsApp limits the session's rate; it pauses.", session_id=self._session_id, pause_s=pause
                )
            await self._settle(message, Outcome(MessageState.FAILED, detail=str(error), failure=error.failure))
            return True
        if error.is_answer:
            sent_id = await self._until_written(
                lambda: self._store.sent_message_id(self._session_id, message.request_id)
            )
            state = MessageState.OUTCOME_UNKNOWN if sent_id else MessageState.FAILED
            await self._settle(message, Outcome(state, sent_id, detail=str(error)))
            return True
        # The library may still be at it, and would hold up the next message. The next epoch settles this one.
        if self._is_connected:
            log.warning("A send has no end; replacing the session's process.", session_id=self._session_id)
            self.session.runner.restart()
        return False

    async def _settle(self, message: OutboundMessage, outcome: Outcome) -> None:
        settled = await self._until_written(
            lambda: self._store.settle(message.session_id, message.request_id, message.epoch, outcome)
        )
        self._begun.discard(message.request_id)
        if settled.message_id and (early := self.session.runner.early_receipts.pop(settled.message_id)) is not None:
            # The receipt came before the outcome was recorded.
            await self._until_written(lambda: self._store.delivered(message.session_id, [settled.message_id], early))
            settled = replace(settled, state=early)
        if (waited_for := self._outcomes.pop(message.request_id, None)) is not None:
            waited_for.set_result(settled)

    async def _until_written(self, write: Callable[[], Awaitable[_Result]]) -> _Result:
        """Write, however long the database is away. If the node dies first, the next epoch settles the message."""
        while True:
            try:
                return await write()
            except LeaseLost:
                raise
            except Unavailable as error:
                log.warning(
                    "Writing a message's outcome failed; retrying.", session_id=self._session_id, **error.metadata
                )
                await asyncio.sleep(RETRY_S)
