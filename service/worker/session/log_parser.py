"""What whatsmeow tells nobody but its log: logins that failed, reconnections of its own, and resends that did.

neonize has no event for a login that whatsmeow would try again (500, 503), raises without the number for one that it
does not map (418, say, or a ban of an unknown kind), and for two of them whatsmeow itself calls what is not there
(413, 414: Go panics). Each is a line of the log first, written before anything follows from it.
"""

import datetime
import re
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from service.domain.disconnect_policy import Cause
from service.worker.process.frame_writer import timestamp
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2

_LOGGER = "Client"

_STANZA = re.compile(r"(?:Unknown|Temporary ban) connect failure: <failure ([^<>]*?)/?>")
_NUMBER = re.compile(r"Got (\d{1,9})[/:].{0,200} connect failure, ")
_RECONNECT = re.compile(r"Error reconnecting after autoreconnect sleep: (.*)", re.DOTALL)
_RESTART = re.compile(r"Failed to reconnect after 515 code: (.*)", re.DOTALL)
_RESEND = re.compile(
    r"Failed to handle retry receipt for (?P<chat>[^/\s]+)/(?P<id>[^/\s]+) from (?P<device>[^@\s]+@[^@\s]+): "
    # The sender of a receipt chooses its id, which may look like the rest of such a line.
    r"(?P<words>(?!.* from [^@\s]+@\S+: ).*)",
    re.DOTALL,
)
_RESEND_DROPPED = re.compile(
    r"Dropping retry request from (?P<id>[^/\s]+) for (?P<device>[^@\s]+@[^@\s]+): internal retry counter"
)
_NOT_KEPT = re.compile(r"failed to get message from retry store: sql: no rows|couldn't find message ")
_COMES_AGAIN = re.compile(r"context canceled|websocket (not connected|disconnected)")
"""The request is not acknowledged then, and WhatsApp hands it over at the next login."""
_ATTRIBUTE = re.compile(r"\b(\w+)=\"(\d{1,18})\"")

_CAUSES = {
    401: Cause.LOGGED_OUT_BY_WHATSAPP,
    402: Cause.TEMPORARILY_BANNED,
    403: Cause.ACCOUNT_LOCKED,
    405: Cause.CLIENT_OUTDATED,
    406: Cause.ACCOUNT_BANNED,
    409: Cause.CLIENT_OUTDATED,
}
_FATAL = frozenset({413, 414})
_SERVERS_FAULTS = range(500, 600)
_LONGEST_BAN = 10 * 365 * 86400


@dataclass(frozen=True)
class LoginFailed:
    """WhatsApp answered a login with a failure."""

    code: int
    ban_code: int = 0
    ban_seconds: int = 0

    @property
    def is_fatal(self) -> bool:
        """Go panics as soon as this line is written."""
        return self.code in _FATAL

    @property
    def is_unlinking(self) -> bool:
        """WhatsApp does not know the device, or will not have it."""
        return self.code in (401, 403, 406)

    @property
    def is_untold(self) -> bool:
        """Nothing else tells of it: neither an event nor an error of `connect()`."""
        return self.is_fatal or self.code in (500, 503)

    @property
    def cause(self) -> Cause:
        """What it means for this process."""
        unknown = Cause.WHATSAPP_ERROR if self.code in _SERVERS_FAULTS else Cause.CONNECTION_REFUSED
        return _CAUSES.get(self.code, unknown)

    @property
    def detail(self) -> str:
        """For the log."""
        return f"login failure {self.code}" + (f", ban {self.ban_code}" if self.ban_code else "")

    def ended(self, now: datetime.datetime) -> frames_pb2.Ended:
        """The last word of a process that ends by it."""
        ended = frames_pb2.Ended(cause=self.cause.name, detail=self.detail)
        if (end := ban_end(self.ban_seconds, now)) is not None:
            ended.until.CopyFrom(end)
        return ended


@dataclass(frozen=True)
class ReconnectFailed:
    """A reconnection of whatsmeow's own failed."""

    words: str
    is_last: bool
    """It will not try again, and says so to nobody."""


@dataclass(frozen=True)
class ResendFailed:
    """A device asked for a message again, and was not sent it."""

    chat: str
    message_id: str
    device: str
    reason: "event_pb2.ResendFailed.Reason.ValueType"


LogEvent = LoginFailed | ReconnectFailed | ResendFailed


def ban_end(seconds: int, now: datetime.datetime) -> Timestamp | None:
    """When a ban of so many seconds ends; None if that is not known, or beyond all reason."""
    return timestamp(now + datetime.timedelta(seconds=seconds)) if 0 < seconds < _LONGEST_BAN else None


def parse_line(logger: str, line: str) -> LogEvent | None:
    """What a line of whatsmeow's log tells; None: nothing of this kind."""
    # From the beginning of the line on: elsewhere it may be text that a stranger wrote.
    if logger != _LOGGER:
        return None
    if found := _STANZA.match(line):
        attributes = {name: int(value) for name, value in _ATTRIBUTE.findall(found[1])}
        return LoginFailed(attributes.get("reason", 0), attributes.get("code", 0), attributes.get("expire", 0))
    if found := _NUMBER.match(line):
        return LoginFailed(int(found[1]))
    if found := _RECONNECT.match(line):
        return ReconnectFailed(found[1], is_last=False)
    if found := _RESTART.match(line):
        return ReconnectFailed(found[1], is_last=True)
    return _resend_failed(line)


def _resend_failed(line: str) -> ResendFailed | None:
    if found := _RESEND_DROPPED.match(line):
        return ResendFailed("", found["id"], found["device"], event_pb2.ResendFailed.REASON_ASKED_TOO_OFTEN)
    found = _RESEND.fullmatch(line)
    if found is None or _COMES_AGAIN.search(found["words"]):
        return None
    is_kept = _NOT_KEPT.match(found["words"]) is None
    reason = event_pb2.ResendFailed.REASON_NOT_SENT if is_kept else event_pb2.ResendFailed.REASON_NOT_KEPT
    return ResendFailed(found["chat"], found["id"], found["device"], reason)
