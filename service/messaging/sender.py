"""Sends messages for callers: writes the request to the database, and waits for its outcome."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from service.domain.caller import Caller
from service.domain.errors import NotFound, Unavailable
from service.domain.records import MessageFilter, MessagePosition, MessageState, NewMessage, OutboundMessage
from service.messaging.send_queue import ConnectedSession, SendQueue, Settled
from service.messaging.send_rate import SendLimit, SendRate
from service.ports.messages import MessageStore, SendQueueStore
from service.ports.metrics import Metrics
from service.ports.sessions import SessionStore
from service.sessions.process_calls import not_connected
from service.sessions.registry import RunnerRegistry

log = structlog.get_logger(__name__)

SETTLE_POLL_S = 0.1
"""Seconds between two reads of a message that is being sent."""
QUEUE_CHECK_S = 1.0
"""Seconds between two looks for messages that an earlier owner or process of a session has left in its queue."""


class MessageSender:
    """Implements MessageService."""

    def __init__(
        self,
        sessions: Callable[[Caller], SessionStore],
        messages: Callable[[Caller], MessageStore],
        queue_store: SendQueueStore,
        registry: RunnerRegistry,
        metrics: Metrics | None = None,
        limit: SendLimit | None = None,
    ) -> None:
        """`limit`: of each session's rate; None: there is none."""
        self._limit = limit or SendLimit()
        self._rates: dict[str, SendRate] = {}
        """By session_id, as long as the session is on this node."""
        self._sessions = sessions
        self._metrics = metrics or Metrics()
        self._messages = messages
        self._queue_store = queue_store
        self._registry = registry
        self._queues: dict[str, SendQueue] = {}
        """By session_id, of the sessions that have sent something in their current epoch."""
        self._is_draining = False
        self._paused: set[str] = set()
        """The sessions that are being handed over."""

    async def send(self, caller: Caller, session_id: str, new: NewMessage, timeout: float) -> OutboundMessage:
        """Send a message to a JID, once per request_id. Wait at most `timeout` seconds for WhatsApp's server.

        A message that is still ACCEPTED then is sent later.
        """
        deadline = time.monotonic() + timeout
        if self._is_draining:
            raise Unavailable("this node is stopping; call again", reason="NODE_DRAINING")
        queue = self._queue(session_id)
        if queue is None:
            # Only a message that was accepted before can be answered.
            earlier = await self._messages(caller).find(session_id, new.request_id, new.fingerprint)
            if earlier is None:
                raise not_connected(await self._sessions(caller).get(session_id))
            return await self._settled(caller, earlier, deadline)
        # The message is stored although the caller hangs up: one that is stored and not passed on would wait for ever.
        task = asyncio.create_task(queue.put(self._messages(caller), new))
        task.add_done_callback(_retrieve)
        message, settled = await asyncio.shield(task)
        return await self._settled(caller, message, deadline, settled)

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

    async def list(
        self, caller: Caller, session_id: str, chosen: MessageFilter, after: MessagePosition | None, limit: int
    ) -> Sequence[OutboundMessage]:
        """Return at most `limit` messages after a position, the newest first. Raises NotFound."""
        found = await self._messages(caller).list(session_id, chosen, after, limit)
        if not found:
            await self._sessions(caller).get(session_id)
        return found

    async def cancel(self, caller: Caller, session_id: str, request_id: str) -> OutboundMessage:
        """Remove a message from the queue, and return it as it is then. Raises NotFound."""
        message = await self._messages(caller).cancel(session_id, request_id)
        return message or await self.get(caller, session_id, request_id)

    async def run(self) -> None:
        """Send, until cancelled, what earlier owners and processes of the sessions left in their queues."""
        while True:
            try:
                for session_id in await self._queue_store.sessions_with_queue(self._registry.incarnation):
                    if (queue := self._queue(session_id)) is not None:
                        queue.wake()
            except Unavailable as error:
                log.debug("Cannot look for queued messages.", **error.metadata)
            for session_id in [each for each in self._rates if self._registry.get(each) is None]:
                self._queues.pop(session_id, None)
                del self._rates[session_id]
            await asyncio.sleep(QUEUE_CHECK_S)

    async def finish(self, timeout: float) -> None:
        """Refuse new sends, begin none that wait, and wait at most `timeout` seconds for the running ones."""
        self._is_draining = True
        await asyncio.gather(*(queue.pause(timeout) for queue in self._queues.values()))

    def is_sending(self, session_id: str) -> bool:
        """Return whether a message of the session is being sent."""
        queue = self._queues.get(session_id)
        return queue is not None and queue.is_sending

    @asynccontextmanager
    async def paused(self, session_id: str, timeout: float) -> AsyncIterator[bool]:
        """Refuse new sends of a session while the context lasts, as for a hand-over, and begin none that wait.

        Yields whether the running one was done within `timeout` seconds.
        """
        self._paused.add(session_id)
        queue = self._queues.get(session_id)
        try:
            yield queue is None or await queue.pause(timeout)
        finally:
            # The session may have stayed on this node, or have come back.
            self._paused.discard(session_id)
            if queue is not None:
                queue.resume()

    def _queue(self, session_id: str) -> SendQueue | None:
        """Return the queue of a session that is connected on this node."""
        runner = self._registry.get(session_id) if session_id not in self._paused and not self._is_draining else None
        connection = runner.connection if runner is not None else None
        if runner is None or connection is None:
            return None
        lease, process = connection
        queue = self._queues.get(session_id)
        if queue is None or queue.session.process is not process:
            session = ConnectedSession(lease, process, runner)
            rate = self._rates.setdefault(session_id, SendRate(self._limit))
            queue = self._queues[session_id] = SendQueue(session, self._queue_store, rate, self._metrics)
        return queue

    async def _settled(
        self, caller: Caller, message: OutboundMessage, deadline: float, settled: Settled | None = None
    ) -> OutboundMessage:
        """Wait until the message is settled, or until the deadline. Return it as it is then."""
        while message.state is MessageState.ACCEPTED and (left := deadline - time.monotonic()) > 0:
            if settled is None:
                await asyncio.sleep(min(SETTLE_POLL_S, left))
            else:
                # Another process, or another node, may settle it.
                await asyncio.wait([settled], timeout=min(SETTLE_POLL_S, left))
                if settled.done():
                    return settled.result()
            message = await self.get(caller, message.session_id, message.request_id)
        return message


def _retrieve(task: "asyncio.Task[tuple[OutboundMessage, Settled | None]]") -> None:
    if not task.cancelled():
        # So that asyncio does not log the exception when the caller has hung up.
        task.exception()
