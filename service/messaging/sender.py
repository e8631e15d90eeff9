"""Sends messages: writes the request to the database, asks WhatsApp once, and writes the outcome."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from service.domain.caller import Caller
from service.domain.errors import NotFound, Unavailable
from service.domain.lease import Lease
from service.domain.records import MessageState, NewMessage, OutboundMessage, Outcome, TypedPayload
from service.messaging.keyed_lock import KeyedLock
from service.ports.messages import MessageStore
from service.ports.metrics import Metrics
from service.ports.processes import CallFailed, SessionProcess
from service.ports.sessions import SessionStore
from service.sessions.early_receipts import EarlyReceipts
from service.sessions.process_calls import not_connected
from service.sessions.registry import RunnerRegistry

log = structlog.get_logger(__name__)

SETTLE_POLL_S = 0.1
"""Seconds between two reads of a message that another call is sending."""
SETTLE_RETRY_S = 0.5
"""Seconds between two attempts to write the outcome while the database is away."""


@dataclass(frozen=True)
class ConnectedSession:
    """Holds what is needed to send through a session that is connected on this node."""

    lease: Lease
    process: SessionProcess
    early_receipts: EarlyReceipts


class MessageSender:
    """Implements MessageService."""

    def __init__(
        self,
        sessions: Callable[[Caller], SessionStore],
        messages: Callable[[Caller], MessageStore],
        registry: RunnerRegistry,
        metrics: Metrics | None = None,
    ) -> None:
        self._sessions = sessions
        self._metrics = metrics or Metrics()
        self._messages = messages
        self._registry = registry
        self._sends: dict[asyncio.Task[OutboundMessage], str] = {}
        """The running sends, each with its session_id."""
        self._locks = KeyedLock()
        self._unsettled: set[tuple[str, str]] = set()
        """Session and request_id of each send that was begun here and is not settled."""
        self._is_draining = False
        self._paused: set[str] = set()
        """The sessions that are being handed over."""

    async def send(self, caller: Caller, session_id: str, new: NewMessage, timeout: float) -> OutboundMessage:
        """Send a message to a JID, once per request_id. Wait at most `timeout` seconds for WhatsApp's server."""
        deadline = time.monotonic() + timeout
        if self._is_draining:
            raise Unavailable("this node is stopping; call again", reason="NODE_DRAINING")
        session = self._connected(session_id)
        if session is None:
            # Only a message that was accepted before can be answered.
            earlier = await self._messages(caller).find(session_id, new.request_id, new.fingerprint)
            if earlier is None:
                raise not_connected(await self._sessions(caller).get(session_id))
            return await self._settled(caller, earlier, deadline)
        # The send goes on if the caller hangs up: WhatsApp may have the message, so its outcome must be written, and a
        # request that was written and is not carried out would stay open for ever.
        task = asyncio.create_task(self._send_once(caller, session, new, deadline))
        self._sends[task] = session_id
        task.add_done_callback(self._forget)
        return await self._settled(caller, await asyncio.shield(task), deadline)

    async def get(self, caller: Caller, session_id: str, request_id: str) -> OutboundMessage:
        """Return the message as it is now. Raises NotFound."""
        message = await self._messages(caller).find(session_id, request_id, None)
        if message is None:
            await self._sessions(caller).get(session_id)
            raise NotFound(
                f"session {session_id!r} has sent nothing under request_id {request_id!r}",
                reason="MESSAGE_NOT_FOUND",
                metadata={"session_id": session_id, "request_id": request_id},
            )
        return message

    async def finish(self, timeout: float) -> None:
        """Refuse new sends, and wait at most `timeout` seconds for the running ones."""
        self._is_draining = True
        if self._sends:
            await asyncio.wait(self._sends, timeout=timeout)

    def is_sending(self, session_id: str) -> bool:
        """Return whether a send of the session is running or waiting."""
        return session_id in self._sends.values()

    @asynccontextmanager
    async def paused(self, session_id: str, timeout: float) -> AsyncIterator[bool]:
        """Refuse new sends of a session while the context lasts, as for a hand-over, and wait for the running ones.

        Yields whether they were done within `timeout` seconds.
        """
        self._paused.add(session_id)
        try:
            if sends := [task for task, by in self._sends.items() if by == session_id]:
                await asyncio.wait(sends, timeout=timeout)
            yield not self.is_sending(session_id)
        finally:
            # The session may have stayed on this node, or have come back.
            self._paused.discard(session_id)

    def _connected(self, session_id: str) -> ConnectedSession | None:
        runner = self._registry.get(session_id) if session_id not in self._paused else None
        connection = runner.connection if runner is not None else None
        if runner is None or connection is None:
            return None
        return ConnectedSession(*connection, runner.early_receipts)

    async def _send_once(
        self, caller: Caller, session: ConnectedSession, new: NewMessage, deadline: float
    ) -> OutboundMessage:
        lease = session.lease
        key = (lease.session_id, new.request_id)
        async with self._locks.acquire(key):
            message, is_new = await self._messages(caller).accept(lease, new.request_id, new.to, new.fingerprint)
            # Accepted in this epoch but not being sent: the answer to an earlier accept was lost, so send it now.
            is_unstarted = message.state is MessageState.ACCEPTED and message.epoch == lease.epoch
            if not is_new and (not is_unstarted or key in self._unsettled):
                return message
            # After an internal error the outcome is unknown, so the message must not be resent.
            self._unsettled.add(key)
            try:
                message = await self._send(caller, session, message, new.content, deadline)
            except NotFound:
                # The message was deleted with its session.
                self._unsettled.discard(key)
                raise
            self._unsettled.discard(key)
            return message

    def _forget(self, task: asyncio.Task[OutboundMessage]) -> None:
        self._sends.pop(task, None)
        if not task.cancelled():
            # Retrieve the exception, so that asyncio does not log it when the caller has hung up.
            task.exception()

    async def _send(
        self,
        caller: Caller,
        session: ConnectedSession,
        message: OutboundMessage,
        content: TypedPayload,
        deadline: float,
    ) -> OutboundMessage:
        try:
            began = time.monotonic()
            reply = await session.process.send(message.to, content, max(0.1, deadline - began))
            self._metrics.sent(time.monotonic() - began)
        except CallFailed as error:
            if error.certain:
                outcome = Outcome(MessageState.FAILED, detail=str(error), failure=error.failure)
            else:
                outcome = Outcome(MessageState.OUTCOME_UNKNOWN, detail=str(error))
        else:
            outcome = Outcome(MessageState.SENT, reply.message_id, sent=reply.sent_time)
        message = await self._settle(caller, message, outcome)
        early = session.early_receipts.pop(message.message_id)
        if early is not None:
            # The receipt came before the message was recorded as sent.
            await self._messages(caller).delivered(message.session_id, [message.message_id], early)
            message = await self.get(caller, message.session_id, message.request_id)
        return message

    async def _settle(self, caller: Caller, message: OutboundMessage, outcome: Outcome) -> OutboundMessage:
        """Write the outcome, however long the database is away. If the node dies first, the next epoch settles it."""
        while True:
            try:
                return await self._messages(caller).settle(message.session_id, message.request_id, outcome)
            except Unavailable as error:
                log.warning(
                    "Writing a message's outcome failed; retrying.", session_id=message.session_id, **error.metadata
                )
                await asyncio.sleep(SETTLE_RETRY_S)

    async def _settled(self, caller: Caller, message: OutboundMessage, deadline: float) -> OutboundMessage:
        """Wait until the message is settled, or until the deadline. Return it as it is then."""
        while message.state is MessageState.ACCEPTED and time.monotonic() < deadline:
            await asyncio.sleep(SETTLE_POLL_S)
            message = await self.get(caller, message.session_id, message.request_id)
        return message
