"""Writes what a session's processes report: inbound events to the log, the rest to the session's state."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from itertools import groupby
from typing import TypeVar

import structlog

from service.domain import observations as seen
from service.domain.disconnect_policy import Cause
from service.domain.errors import LeaseLost, Unavailable
from service.domain.events import Event, NewEvent
from service.domain.lease import Lease
from service.domain.pairing import PairingCode, identity_of
from service.domain.reasons import reason
from service.domain.receipts import message_updates
from service.domain.records import Account
from service.domain.restart_policy import RestartPolicy
from service.domain.session import Condition, Directive, Input, State, Transition, reduce
from service.domain.start_scheduler import Lane
from service.ports.bus import Publisher
from service.ports.eventlog import EventLog
from service.ports.processes import SessionProcess
from service.ports.sessions import OwnedSessionStore
from service.sessions.early_receipts import EarlyReceipts

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

DATABASE_RETRY_S = 0.5
"""Seconds between two attempts to write while the database is away."""


class ObservationSink:
    """Writes the observations of one session under its lease, and keeps what follows from them.

    The writing methods retry while the database is away. They raise LeaseLost (EpochRevoked, if the epoch's desired
    state was withdrawn) and NotFound, and have written nothing then.
    """

    def __init__(
        self,
        session_id: str,
        owned: OwnedSessionStore,
        events: EventLog,
        publisher: Publisher,
        ttl: float,
        is_lost: Callable[[], bool],
    ) -> None:
        """`ttl`: of the lease, in seconds. `is_lost`: whether the lease is lost; then a retry ends."""
        self.condition: Condition | None = None
        """The session's condition as last written; None before that, and when the session is given up."""
        self.active_at = 0.0
        """When the session was last active."""
        self.proxy_url = ""
        """The session's proxy when its condition was last written."""
        self.restart_wait_s = 0.0
        """Seconds to wait before the next process."""
        self.early_receipts = EarlyReceipts()
        self.restarts = RestartPolicy(ttl)
        self._session_id = session_id
        self._owned = owned
        self._events = events
        self._publisher = publisher
        self._is_lost = is_lost
        self._log = log.bind(session_id=session_id)

    @property
    def state(self) -> State | None:
        """The session's state as last written."""
        return self.condition.state if self.condition is not None else None

    @property
    def lane(self) -> Lane:
        """The lane in which the session's next process waits for its start permit."""
        return self.restarts.lane(is_pairing=self.state is State.PAIRING)

    async def write(self, lease: Lease, process: SessionProcess, group: Sequence[seen.Observed]) -> Transition | None:
        """Write one group of `grouped`. Return the transition that it makes, if it makes one."""
        observed = group[0]
        match observed.observation:
            case seen.InboundEvent():
                await self._append(lease, process, group)
            case seen.CodeShown() as shown:
                code = PairingCode(shown.text, shown.position, observed.time + shown.lifetime)
                identity = identity_of(shown.text)
                self._publish(await self.until_written(lambda: self._owned.show_code(lease, code, identity)))
            case observation:
                return await self.apply(lease, observation)
        return None

    async def apply(self, lease: Lease, cause: Input) -> Transition:
        """Write what `cause` makes of the session's condition."""
        self.restarts.record(cause, time.monotonic())
        # The jitter is no secret; it keeps sessions that ended together from coming back together.
        self.restart_wait_s = self.restarts.wait_after(cause, random.random())  # noqa: S311
        wait = timedelta(seconds=self.restart_wait_s)
        account = _account(cause)
        session, transition, events = await self.until_written(
            lambda: self._owned.observe(lease, lambda c, now: reduce(c, cause, now, wait), account)
        )
        self._log_change(cause, transition.condition)
        self.active_at, self.proxy_url = session.active_at, session.proxy_url
        self.condition = transition.condition
        self.restarts.inherit(transition.condition.attempts)
        self._publish(events)
        return transition

    async def end(self, lease: Lease, cause: Cause, detail: str = "") -> Directive:
        """Write the end of a process that did not report it. Return what follows."""
        return (await self.apply(lease, seen.Ended(cause, detail))).directive

    async def until_written(self, write: Callable[[], Awaitable[Result]]) -> Result:
        """Call `write` until the database answers. Raises LeaseLost, also if the lease is lost meanwhile."""
        while True:
            try:
                return await write()
            except LeaseLost:
                raise
            except Unavailable as error:
                self._log.warning("Write failed because the database is unavailable; retrying.", **error.metadata)
                if self._is_lost():
                    raise LeaseLost(f"the lease of session {self._session_id!r} ended in an outage") from error
                await asyncio.sleep(DATABASE_RETRY_S)

    async def _append(self, lease: Lease, process: SessionProcess, inbound: Sequence[seen.Observed]) -> None:
        """Append inbound events and confirm them to the process, which then acknowledges them to WhatsApp.

        WhatsApp sends what is not acknowledged again, to the session's next process.
        """
        new_events = [
            NewEvent(observed.observation, observed.time, observed.origin)
            for observed in inbound
            if isinstance(observed.observation, seen.InboundEvent)
        ]
        for state, message_ids in message_updates(new_events).items():
            self.early_receipts.remember(message_ids, state)
        appended = await self.until_written(lambda: self._events.append(lease, new_events))
        self.early_receipts.forget(appended.message_ids)
        if (number := max(observed.number for observed in inbound)) > 0:
            process.confirm(number)
        self._publisher.publish(appended.events)

    def _publish(self, events: Sequence[Event]) -> None:
        self._publisher.publish(events)
        self._publisher.wake(self._session_id)

    def _log_change(self, cause: Input, after: Condition) -> None:
        """Log each end of a process, as a warning if a user has to act; and each change of state."""
        fields = {"state": after.state.value, "reason": after.reason}
        if isinstance(cause, seen.Ended):
            level = logging.WARNING if after.reason and reason(after.reason).user_action else logging.INFO
            words = {"cause": cause.cause.value, "detail": cause.detail}
            self._log.log(level, "The session's process ended.", **fields, **words)
        elif after.state is not self.state:
            self._log.info("The session changed.", **fields)


def grouped(batch: Sequence[seen.Observed]) -> Iterator[Sequence[seen.Observed]]:
    """Yield a batch in its order: inbound events that follow each other together, every other observation alone."""
    for is_inbound, group in groupby(batch, lambda observed: isinstance(observed.observation, seen.InboundEvent)):
        if is_inbound:
            yield list(group)
        else:
            yield from ([observed] for observed in group)


def _account(cause: Input) -> Account | None:
    match cause:
        case seen.DeviceSaved():
            return Account(jid=cause.jid, lid=cause.lid, platform=cause.platform)
        case seen.Connected():
            return Account(jid=cause.jid, lid=cause.lid, push_name=cause.push_name)
        case seen.PushNameChanged():
            return Account(push_name=cause.push_name)
    return None
