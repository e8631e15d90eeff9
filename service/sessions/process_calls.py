"""Has the process of a session carry out a call to WhatsApp, for a caller."""

from collections.abc import Callable

from service.domain.call_failures import CallFailure, call_error
from service.domain.caller import Caller
from service.domain.errors import FailedPrecondition, Unavailable
from service.domain.records import Session, TypedPayload
from service.domain.session import Credentials, Desired
from service.ports.processes import CallFailed, SessionProcess
from service.ports.sessions import SessionStore
from service.sessions.registry import RunnerRegistry


class ProcessCalls:
    """Serves every call that reads or changes something at WhatsApp, and is no message.

    Such a call is not stored. After OutcomeUnknown the caller looks at the state and decides.
    """

    def __init__(self, sessions: Callable[[Caller], SessionStore], registry: RunnerRegistry) -> None:
        self._sessions = sessions
        self._registry = registry

    async def call(self, caller: Caller, session_id: str, request: TypedPayload, timeout: float) -> TypedPayload:
        """Return the result of a request of zap/worker/v1/calls.proto. Wait at most `timeout` seconds.

        Raises the errors of `domain.call_failures` and of `not_connected`, and NotFound for an unknown session.
        """
        process = await self.connected(caller, session_id)
        try:
            return await process.call(request, timeout)
        except CallFailed as error:
            kind = CallFailure.__members__.get(error.kind, CallFailure.CALL_FAILED)
            raise call_error(kind if error.certain else CallFailure.WHATSAPP_SILENT, session_id, str(error)) from error

    async def connected(self, caller: Caller, session_id: str) -> SessionProcess:
        """Return the process of a connected session. Raises the errors of `not_connected`, and NotFound."""
        runner = self._registry.get(session_id)
        connection = runner.connection if runner is not None else None
        if connection is None:
            raise not_connected(await self._sessions(caller).get(session_id))
        return connection[1]


def not_connected(session: Session) -> FailedPrecondition | Unavailable:
    """Return the error for a session that is not connected here, by the first thing that the caller can correct."""
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
        f"session {session.session_id!r} is not connected now; nothing was done",
        reason="SESSION_NOT_CONNECTED",
        metadata=metadata,
    )
