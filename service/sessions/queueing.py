"""What callers are told of a session that waits for its turn to be started: that it does, behind how many, until when.

If a node owns it, that node has said when it expects to start it. If nobody does, its place in the database's order
says it. The state stays what it is; the reason is this one for as long as it waits.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from service.domain.records import Session
from service.domain.session import Desired, State
from service.ports import SessionStore

REMEMBER = 1.0
"""Seconds for which the order of those that are nobody's is remembered: it is read once for all who ask."""

_ON_THEIR_WAY = {State.PAIRING, State.CONNECTING, State.RECONNECTING}


class Gate(Protocol):
    """Where starts wait for their turn on this node; another one's is taken to be like it."""

    @property
    def rate(self) -> float:
        """Starts a second."""

    def seconds_until_claim(self, before: int) -> float:
        """About how long until a session is claimed here, if `before` others are claimed first."""


class Queueing:
    """Adds to sessions what there is to tell."""

    def __init__(self, store: SessionStore, gate: Gate) -> None:
        self._store = store
        self._gate = gate
        self._order: Mapping[str, int] = {}
        self._read_at = -REMEMBER
        self._reading = asyncio.Lock()

    async def tell(self, sessions: Sequence[Session]) -> Sequence[Session]:
        """The sessions, those that wait with what there is to tell of it. Nothing is read for those that do not."""
        order = await self._read() if any(map(_may_be_unclaimed, sessions)) else {}
        return [self._told(session, order) for session in sessions]

    def _told(self, session: Session, order: Mapping[str, int]) -> Session:
        if session.turn_in is not None:
            seconds = max(0.0, session.turn_in)
            return self._waiting(session, seconds, round(seconds * self._gate.rate))
        if not _may_be_unclaimed(session) or (before := order.get(session.session_id)) is None:
            return session
        seconds = self._gate.seconds_until_claim(before)
        return self._waiting(session, seconds, before) if seconds > 0 else session

    def _waiting(self, session: Session, seconds: float, before: int) -> Session:
        when = datetime.now(UTC) + timedelta(seconds=seconds)
        return replace(
            session,
            condition=replace(session.condition, reason="WAITING_FOR_TURN", next_attempt=when),
            detail=f"Sessions are started at {self._gate.rate:g} a second; {before} are before this one.",
        )

    async def _read(self) -> Mapping[str, int]:
        async with self._reading:
            if time.monotonic() - self._read_at >= REMEMBER:
                self._order = {session_id: place for place, session_id in enumerate(await self._store.queue())}
                self._read_at = time.monotonic()
            return self._order


def _may_be_unclaimed(session: Session) -> bool:
    condition = session.condition
    return session.owner is None and condition.desired is Desired.ACTIVE and condition.state in _ON_THEIR_WAY
