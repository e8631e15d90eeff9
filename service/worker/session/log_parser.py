"""Parses what whatsmeow only logs: logins, automatic reconnections and resends that failed.

neonize has no event for a login failure that whatsmeow would retry (500, 503), and raises without the number for one
that it does not map (418, or a ban of an unknown kind). For two others whatsmeow dereferences nil (413, 414: Go
panics). whatsmeow logs each of them before it acts on it.
"""

import datetime
import re
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from service.domain.disconnect_policy import Cause
from service.worker.session.outbox import timestamp
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2

_LOGGER = "Client"

_STANZA = re.compile(r"(?:Unknown|Temporary ban) connect failure: <failure ([^<>]*?)/?>")
_NUMBER = re.compile(r"Got (\d{1,9})[/:].{0,200} connect failure, ")
_RECONNECT = re.compile(r"Error reconnecting after autoreconnect sleep: (.*)", re.DOTALL)
_RESTART = re.compile(r"Failed to reconnect after 515 code: (.*)", re.DOTALL)
_RESEND = re.compile(
    r"Failed to handle retry receipt for (?P<chat>[^/\s]+)/(?P<id>[^/\s]+) from (?P<device>[^@\s]+@[^@\s]+): "
    # The sender of a receipt chooses its id, which may imitate the rest of such a line.
    r"(?P<words>(?!.* from [^@\s]+@\S+: ).*)",
    re.DOTALL,
)
_RESEND_DROPPED = re.compile(
    r"Dropping retry request from (?P<id>[^/\s]+) for (?P<device>[^@\s]+@[^@\s]+): internal retry counter"
)
_NOT_KEPT = re.compile(r"failed to get message from retry store: sql: no rows|couldn't find message ")
_REDELIVERED = re.compile(r"context canceled|websocket (not connected|disconnected)")
"""Errors after which the request is not acknowledged, so that WhatsApp sends it again at the next login."""
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
_SERVER_FAULTS = range(500, 600)
_MAX_BAN_S = 10 * 365 * 86400


@dataclass(frozen=True)
class LoginFailed:
    """WhatsApp answered a login with a failure."""

    code: int
    ban_code: int = 0
    ban_seconds: int = 0

    @property
    def is_fatal(self) -> bool:
        """Return whether Go panics as soon as this line is written."""
        return self.code in _FATAL

    @property
    def is_unlinking(self) -> bool:
        """Return whether WhatsApp does not know the device, or refuses it for good."""
        return self.code in (401, 403, 406)

    @property
    def is_only_logged(self) -> bool:
        """Return whether neither an event nor an error of `connect()` reports this failure."""
        return self.is_fatal or self.code in (500, 503)

    @property
    def cause(self) -> Cause:
        """Return the cause with which this session ends."""
        unknown = Cause.WHATSAPP_ERROR if self.code in _SERVER_FAULTS else Cause.CONNECTION_REFUSED
        return _CAUSES.get(self.code, unknown)

    @property
    def detail(self) -> str:
        """Return the failure's numbers for the log."""
        return f"login failure {self.code}" + (f", ban {self.ban_code}" if self.ban_code else "")

    def ended(self, now: datetime.datetime) -> frames_pb2.Ended:
        """Return the last frame of a session that ends because of this failure."""
        ended = frames_pb2.Ended(cause=self.cause.name, detail=self.detail)
        if (end := ban_end(self.ban_seconds, now)) is not None:
            ended.until.CopyFrom(end)
        return ended


@dataclass(frozen=True)
class ReconnectFailed:
    """An automatic reconnection of whatsmeow failed."""

    words: str
    is_last: bool
    """whatsmeow does not try again, and raises no event of that."""


@dataclass(frozen=True)
class ResendFailed:
    """A device asked for a message again and did not get it."""

    chat: str
    message_id: str
    device: str
    reason: "event_pb2.ResendFailed.Reason.ValueType"


LogEvent = LoginFailed | ReconnectFailed | ResendFailed


def ban_end(seconds: int, now: datetime.datetime) -> Timestamp | None:
    """Return when a ban of so many seconds ends; None if the duration is unknown or implausibly long."""
    return timestamp(now + datetime.timedelta(seconds=seconds)) if 0 < seconds < _MAX_BAN_S else None


def parse_line(logger: str, line: str) -> LogEvent | None:
    """Return the failure that a line of whatsmeow's log reports; None if it reports none."""
    # The patterns match from the start of the line, because later text may come from a stranger.
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
    if found is None or _REDELIVERED.search(found["words"]):
        return None
    is_kept = _NOT_KEPT.match(found["words"]) is None
    reason = event_pb2.ResendFailed.REASON_NOT_SENT if is_kept else event_pb2.ResendFailed.REASON_NOT_KEPT
    return ResendFailed(found["chat"], found["id"], found["device"], reason)
