"""Messages that callers send, as zap.v1 messages."""

from service.domain.records import MessageState, OutboundMessage
from service.protocol.scalars import timestamp, to_number
from zap.v1 import message_pb2 as pb
from zap.v1 import session_pb2

_NOT_SENT = session_pb2.Reason(
    code="NOT_SENT",
    message="The message was not sent, for certain.",
    user_action="Send it again with another request_id.",
)
_OUTCOME_UNKNOWN = session_pb2.Reason(
    code="OUTCOME_UNKNOWN",
    message="It could not be known whether the message was sent.",
    user_action="Look at the chat on the phone; another request_id sends it again.",
)


def outbound_message(message: OutboundMessage) -> pb.Message:
    """A message as Send and Get give it."""
    return pb.Message(
        session_id=message.session_id,
        request_id=message.request_id,
        message_id=message.message_id,
        to=message.to,
        state=to_number(message.state, pb.Message.State.Value, "STATE_"),
        reason=_reason(message),
        create_time=timestamp(message.create_time),
        sent_time=timestamp(message.sent_time),
        update_time=timestamp(message.update_time),
        unreadable_since_time=timestamp(message.unreadable_since),
        is_resend_failed=message.is_resend_failed,
    )


def _reason(message: OutboundMessage) -> session_pb2.Reason | None:
    kinds = {MessageState.FAILED: _NOT_SENT, MessageState.OUTCOME_UNKNOWN: _OUTCOME_UNKNOWN}
    kind = kinds.get(message.state)
    if kind is None:
        return None
    return session_pb2.Reason(code=kind.code, message=message.detail or kind.message, user_action=kind.user_action)
