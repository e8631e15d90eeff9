"""Sends a request of a servicer to the process of a session, and waits for its result."""

from typing import TypeVar

from google.protobuf.message import Message

from service.api.grpc.context import Context, caller_of
from service.api.grpc.deadlines import remaining_time
from service.protocol.payloads import message_of, payload_of
from service.sessions.process_calls import ProcessCalls

TIMEOUT_S = 30.0
"""Seconds in which WhatsApp must answer."""

_ResultT = TypeVar("_ResultT", bound=Message)


async def ask(
    calls: ProcessCalls,
    context: Context,
    session_id: str,
    request: Message,
    result: type[_ResultT],
    timeout: float = TIMEOUT_S,
) -> _ResultT:
    """Return the result of a request of zap/worker/v1, within the call's deadline and at most `timeout` seconds.

    Raises what ProcessCalls raises.
    """
    left = remaining_time(context, timeout)
    answer = await calls.call(caller_of(context), session_id, payload_of(request), left)
    return message_of(answer, result)
