"""Convert List of messages: its filters, and the tokens of its pages."""

import base64
import binascii
import hashlib
import json
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.domain.records import MessageFilter, MessagePosition, MessageState
from service.protocol.parsing import refuse
from zap.v1 import message_pb2 as pb

_DEFAULT_PAGE_SIZE = 50
_MAX_PAGE_SIZE = 1000
_CHECKSUM_BYTES = 12
_MICROSECONDS = struct.Struct("!q")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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


def _since(request: pb.ListMessagesRequest) -> datetime:
    try:
        return request.since.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise refuse("since", "must be a time between the years 1 and 9999") from error


def message_page_token(session_id: str, chosen: MessageFilter, last: MessagePosition) -> str:
    """Return the token of the page after a message. It is valid for the same session and filters only."""
    position = _MICROSECONDS.pack((last.create_time - _EPOCH) // timedelta(microseconds=1)) + last.request_id.encode()
    return base64.urlsafe_b64encode(_checksum(session_id, chosen, position) + position).decode().rstrip("=")


def _checksum(session_id: str, chosen: MessageFilter, position: bytes) -> bytes:
    """Return a checksum that binds a page to its filters. It needs no secret: a page shows only what the filters do."""
    since = chosen.since.isoformat() if chosen.since else ""
    states = [state.name for state in chosen.states]
    bound = json.dumps([1, session_id, chosen.chat, states, since]).encode()
    return hashlib.sha256(bound + position).digest()[:_CHECKSUM_BYTES]


def _position_of(token: str, session_id: str, chosen: MessageFilter) -> MessagePosition:
    wrong = refuse("page_token", "must be next_page_token of the page before, unchanged and with the same filters")
    try:
        # Without validate, Python skips characters outside of the alphabet.
        data = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        (microseconds,) = _MICROSECONDS.unpack_from(data, _CHECKSUM_BYTES)
        request_id = data[_CHECKSUM_BYTES + _MICROSECONDS.size :].decode("ascii")
        last = MessagePosition(_EPOCH + timedelta(microseconds=microseconds), request_id)
    except (binascii.Error, UnicodeError, struct.error, OverflowError) as error:
        raise wrong from error
    # A decoder ignores spare bits of the last character, so compare the whole token.
    if message_page_token(session_id, chosen, last) != token:
        raise wrong
    return last
