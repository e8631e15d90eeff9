"""Serves what callers ask of sessions: create, read, change the desired state, pair, log out."""

import hashlib
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import datetime

from service.domain.errors import FailedPrecondition, Unavailable
from service.domain.pairing import CODES_PER_ATTEMPT, NEXT_CODE_LIFETIME, PairingStep
from service.domain.reasons import reason
from service.domain.records import Session
from service.domain.session import (
    Activate,
    Condition,
    Credentials,
    Deactivate,
    Desired,
    Input,
    LoggedOutByCaller,
    Restart,
    State,
    Transition,
    reduce,
)
from service.ports.bus import Publisher, Wakeups
from service.ports.processes import CallFailed
from service.ports.sessions import Changes, Decide, NewSession, SessionFilter, SessionStore
from service.sessions.pairing import pairing_steps
from service.sessions.registry import RunnerRegistry


class SessionService:
    """Implements SessionService for one caller. It writes desired states; a session's owner carries them out."""

    def __init__(self, store: SessionStore, publisher: Publisher, wakeups: Wakeups, registry: RunnerRegistry) -> None:
        self._store = store
        self._publisher = publisher
        self._wakeups = wakeups
        self._registry = registry

    async def create(self, new: NewSession) -> Session:
        """Create a session. An empty session_id is generated, from the request_id if there is one."""
        return await self._store.create(new if new.session_id else replace(new, session_id=_generated(new.request_id)))

    async def status(self, session_id: str) -> Session:
        """Return the session as it is now."""
        return await self._store.get(session_id)

    async def list(self, chosen: SessionFilter, after: str, limit: int) -> Sequence[Session]:
        """Return at most `limit` sessions with an id after `after`, in order."""
        return await self._store.list(chosen, after, limit)

    async def update(self, session_id: str, changes: Changes, etag: str) -> Session:
        """Change the fields that belong to callers."""
        session = await self._store.update(session_id, changes, etag)
        if changes.proxy_url is not None:
            # The owner may have to replace a process that tries to connect through the old proxy.
            self._publisher.notify_work()
        return session

    async def activate(self, session_id: str) -> Session:
        """Set the desired state to ACTIVE."""
        return await self._set_desired(session_id, Activate())

    async def deactivate(self, session_id: str) -> Session:
        """Set the desired state to INACTIVE."""
        return await self._set_desired(session_id, Deactivate())

    async def restart(self, session_id: str) -> Session:
        """Replace the session's process. Raises FailedPrecondition if the session is not active."""

        def decide(condition: Condition, now: datetime) -> Transition:
            # Check under the session's lock, because another caller may deactivate the session at any time.
            if condition.desired is Desired.INACTIVE:
                raise _not_active(session_id)
            return reduce(condition, Restart(), now)

        session = await self._decide(session_id, decide)
        if (runner := self._registry.get(session_id)) is not None:
            runner.restart()
        return session

    async def delete(self, session_id: str, *, force: bool) -> None:
        """Delete the session and its messages. Its credentials are deleted when its process is dead."""
        await self._store.delete(session_id, force=force)
        self._publisher.wake(session_id)
        self._publisher.notify_work()

    async def log_out(self, session_id: str, timeout: float) -> Session:
        """Unlink the device at WhatsApp, within `timeout` seconds. Only the session's owner can."""
        session = await self._store.get(session_id)
        if session.condition.credentials is not Credentials.CONFIRMED:
            raise FailedPrecondition(
                f"session {session_id!r} is not paired: there is nothing to log out",
                reason="SESSION_NOT_PAIRED",
                metadata={"session_id": session_id, "state": session.condition.state.value},
            )
        runner = self._registry.get(session_id)
        connection = runner.connection if runner is not None else None
        if connection is None:
            raise _not_connected(session)
        _, process = connection
        try:
            await process.log_out(timeout)
        except CallFailed as error:
            raise _call_failed(session_id, "log out", error) from error
        return await self._set_desired(session_id, LoggedOutByCaller())

    async def request_pairing_code(self, session_id: str, phone: str, timeout: float) -> tuple[str, datetime]:
        """Return a code to type on the phone, and when the pairing attempt ends."""
        session, pairing = await self._store.pairing(session_id)
        runner = self._registry.get(session_id)
        if session.condition.state is not State.PAIRING:
            raise FailedPrecondition(
                f"session {session_id!r} is not being paired; call Activate first",
                reason="NOT_PAIRING",
                metadata={"session_id": session_id, "state": session.condition.state.value},
            )
        connection = runner.pairing if runner is not None else None
        if connection is None or pairing.code is None:
            why = reason(session.condition.reason).message if session.condition.reason else "It is just beginning."
            raise Unavailable(
                f"the pairing of session {session_id!r} shows no code now. {why}",
                reason="PAIRING_NOT_READY",
                metadata={"session_id": session_id, "cause": session.condition.reason},
            )
        _, process = connection
        try:
            code = await process.request_pairing_code(phone, timeout)
        except CallFailed as error:
            raise _call_failed(session_id, "ask for a pairing code", error) from error
        return code, pairing.code.expire_time + (CODES_PER_ATTEMPT - pairing.code.position) * NEXT_CODE_LIFETIME

    def pairing_steps(self, session_id: str) -> AsyncGenerator[PairingStep, None]:
        """Yield the steps of the session's pairing, the current code at once."""
        return pairing_steps(self._store, self._wakeups, session_id)

    async def _set_desired(self, session_id: str, cause: Input) -> Session:
        return await self._decide(session_id, lambda condition, now: reduce(condition, cause, now))

    async def _decide(self, session_id: str, decide: Decide) -> Session:
        session, _, events = await self._store.decide(session_id, decide)
        self._publisher.publish(events)
        self._publisher.wake(session_id)
        self._publisher.notify_work()
        return session


def _generated(request_id: str) -> str:
    """Return an id, the same for the same request_id, so that a repeated Create names the same session."""
    seed = hashlib.sha256(b"zap.v1 session " + request_id.encode()).hexdigest() if request_id else secrets.token_hex(16)
    return f"s-{seed[:24]}"


def _not_active(session_id: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"session {session_id!r} is not active; call Activate first",
        reason="SESSION_NOT_ACTIVE",
        metadata={"session_id": session_id, "desired_state": Desired.INACTIVE.value},
    )


def _not_connected(session: Session) -> Unavailable:
    return Unavailable(
        f"session {session.session_id!r} is not connected here now",
        reason="SESSION_NOT_CONNECTED",
        metadata={"session_id": session.session_id, "state": session.condition.state.value},
    )


def _call_failed(session_id: str, what: str, error: CallFailed) -> Unavailable:
    return Unavailable(
        f"session {session_id!r} could not {what}: {error}",
        reason="WHATSAPP_REFUSED" if error.certain else "OUTCOME_UNKNOWN",
        metadata={"session_id": session_id},
    )
