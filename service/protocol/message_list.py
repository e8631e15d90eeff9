"""Convert List of messages: its filters, and the tokens of its pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from service.domain.records import MessageFilter, MessagePosition, MessageState
from service.protocol import page_tokens
from service.protocol.parsing import refuse, wrong_page_token
from zap.v1 import message_pb2 as pb

_DEFAULT_PAGE_SIZE = 50
_MAX_PAGE_SIZE = 1000


@dataclass(frozen=True)
class MessagePage:
    """Says which messages a List call requests."""

    chosen: MessageFilter
    after: MessagePosition | None
    """The last message of the page before; None: the first page."""
    size: int


def message_page(request: pb.ListMessagesRequest) -> MessagePage:
    """Return the page that List requests."""
    since = _since(request) if request.HasField("since") else None
    states = {MessageState[pb.Message.State.Name(state).removeprefix("STATE_")] for state in request.states}
    chosen = MessageFilter(request.chat, tuple(sorted(states, key=lambda state: state.name)), since)
    after = _position_of(request.page_token, request.session_id, chosen) if request.page_token else None
    return MessagePage(chosen, after, min(request.page_size or _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE))


def message_page_token(session_id: str, chosen: MessageFilter, last: MessagePosition) -> str:
    """Return the token of the page after a message. It is valid for the same session and filters only."""
    return page_tokens.write(_filters(session_id, chosen), f"{last.create_time.isoformat()} {last.request_id}")


def _filters(session_id: str, chosen: MessageFilter) -> Sequence[object]:
    since = chosen.since.isoformat() if chosen.since else ""
    return ("messages", session_id, chosen.chat, [state.name for state in chosen.states], since)


def _position_of(token: str, session_id: str, chosen: MessageFilter) -> MessagePosition:
    try:
        create_time, request_id = page_tokens.read(token, _filters(session_id, chosen)).split(" ", 1)
        return MessagePosition(datetime.fromisoformat(create_time), request_id)
    except ValueError as error:
        raise wrong_page_token() from error


def _since(request: pb.ListMessagesRequest) -> datetime:
    try:
        return request.since.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise refuse("since", "must be a time between the years 1 and 9999") from error
