"""Convert messages that callers send to zap.v1 messages."""

from service.domain.reasons import Reason
from service.domain.records import MessageState, OutboundMessage
from service.domain.send_failures import SEND_FAILURES, SendFailure
from service.protocol.timestamps import timestamp
from zap.v1 import message_pb2 as pb
from zap.v1 import session_pb2

_OUTCOME_UNKNOWN = Reason(
    "OUTCOME_UNKNOWN",
    "It could not be known whether the message was sent.",
    "Look at the chat on the phone; another request_id sends it again.",
)


def outbound_message(message: OutboundMessage) -> pb.Message:
    """Return a message as Send and Get give it."""
    return pb.Message(
        session_id=message.session_id,
        request_id=message.request_id,
        message_id=message.message_id,
        to=message.to,
        state=pb.Message.State.Value(f"STATE_{message.state.name}"),
        reason=_reason(message),
        create_time=timestamp(message.create_time),
        sent_time=timestamp(message.sent_time),
        update_time=timestamp(message.update_time),
        unreadable_since_time=timestamp(message.unreadable_since),
        is_resend_failed=message.is_resend_failed,
        kind=pb.Message.Kind.Value(f"KIND_{message.kind.name}"),
        chat=message.chat,
        is_queued=message.is_queued,
    )


def _reason(message: OutboundMessage) -> session_pb2.Reason | None:
    if message.state is MessageState.FAILED:
        reason = SEND_FAILURES[message.failure or SendFailure.NOT_SENT]
    elif message.state is MessageState.OUTCOME_UNKNOWN:
        reason = _OUTCOME_UNKNOWN
    else:
        return None
    sentence = f"{reason.message[:-1]} ({message.detail})." if message.detail else reason.message
    return session_pb2.Reason(code=reason.code, message=sentence, user_action=reason.user_action)
