"""Classifies the library's errors, which are plain strings (`log_parser.py` parses its log)."""

import re

from service.domain.call_failures import CallFailure
from service.domain.disconnect_policy import Cause
from service.domain.masking import LONGEST_TEXT_CHARACTERS
from service.domain.send_failures import SendFailure

_PROXY, _TLS = Cause.PROXY_REFUSED, Cause.TLS_REFUSED

_CONNECTION_CAUSES: tuple[tuple[re.Pattern[str], Cause], ...] = (
    (re.compile(r"proto:.*required field|required field .* not set"), Cause.CLIENT_ERROR),
    (re.compile(r"client.*outdated", re.IGNORECASE), Cause.CLIENT_OUTDATED),
    (re.compile(r"^pq:|\bpq: |sqlstate|failed to (open|upgrade) database|database"), Cause.CLIENT_ERROR),
    (re.compile(r"expected handshake response status code 101|bad handshake"), Cause.WHATSAPP_ERROR),
    # For a refused CONNECT, Go's error contains only the text of the proxy's status line.
    (re.compile(r"proxyconnect |socks connect |unsupported proxy|Get \"[^\"]*\": (?!EOF$)[A-Z][\w' -]*$"), _PROXY),
    (re.compile(r"tls: |x509: |certificate|failed to verify server cert|HTTP response to HTTPS client"), _TLS),
    (re.compile(r"deadline exceeded|handshake timeout|timed out waiting for handshake"), Cause.CONNECT_STALLED),
    (re.compile(r"failed to dial|dial tcp|lookup .* on |no such host|handshake"), Cause.UNREACHABLE),
    (re.compile(r"connection (refused|reset)|network is unreachable|no route to host|broken pipe"), Cause.UNREACHABLE),
    (re.compile(r"i/o timeout|timed out|unexpected EOF|\bEOF\b"), Cause.UNREACHABLE),
)

_NOTHING_WAS_SENT = re.compile(
    r"websocket (is )?not connected|frame too large|client is nil"
    r"|not logged in|store doesn't contain a device JID|don't have JID"
    r"|server returned error \d+"
    r"|no LID found|unknown user server|invalid (JID|jid)|can't send message to unknown server"
    r"|failed to (get (device list|user devices|user info|LID|group)|fetch device list|marshal|encrypt|prepare)"
    r"|no signal session established|no app state keys found"
    # The retry store is written before anything is encrypted, so its failure means that nothing was sent.
    r"|failed to (add message to|clear old messages from) retry store"
    r"|recipient (jid|JID) must be a user"
)

_NUMBER = r"(server returned error|info query returned status)"
_SEND_FAILURES: tuple[tuple[re.Pattern[str], SendFailure], ...] = (
    (re.compile(r"no LID found for .* from server"), SendFailure.RECIPIENT_NOT_ON_WHATSAPP),
    (re.compile(r"that group does not exist"), SendFailure.GROUP_NOT_FOUND),
    (re.compile(r"you're not participating in that group"), SendFailure.NOT_IN_GROUP),
    (re.compile(rf"{_NUMBER} (463|475)\b"), SendFailure.ACCOUNT_RESTRICTED),
    (re.compile(rf"{_NUMBER} (420|429)\b"), SendFailure.RATE_LIMITED),
    (re.compile(rf"{_NUMBER} \d"), SendFailure.REFUSED_BY_WHATSAPP),
)
_NOT_CONNECTED = re.compile(r"websocket (is )?not connected|client is nil")
_CALL_FAILURES: tuple[tuple[re.Pattern[str], CallFailure], ...] = (
    (_NOT_CONNECTED, CallFailure.SESSION_NOT_CONNECTED),
    (re.compile(r"no LID found for .* from server"), CallFailure.RECIPIENT_NOT_ON_WHATSAPP),
    (re.compile(r"that group does not exist"), CallFailure.GROUP_NOT_FOUND),
    (re.compile(r"you're not participating in that group"), CallFailure.NOT_IN_GROUP),
    (re.compile(r"group invite link is not valid|that group invite link has been revoked"), CallFailure.INVITE_INVALID),
    (re.compile(r"does not have a profile picture"), CallFailure.PICTURE_NOT_FOUND),
    (re.compile(r"has hidden their profile picture"), CallFailure.PICTURE_HIDDEN),
    (re.compile(r"without PushName set"), CallFailure.NAME_NOT_SET),
    (re.compile(rf"({_NUMBER}|upload failed with status code) (420|429)\b"), CallFailure.RATE_LIMITED),
    (re.compile(r"upload failed with status code (400|413|415)\b"), CallFailure.UPLOAD_REFUSED),
    (re.compile(r"upload failed|failed to (execute request|refresh media connections)"), CallFailure.UPLOAD_FAILED),
    (re.compile(rf"{_NUMBER} (401|403)\b|you don't have the permission"), CallFailure.NOT_ALLOWED),
    (re.compile(rf"{_NUMBER} 404\b|graphql error: 404\b"), CallFailure.WHATSAPP_NOT_FOUND),
    (
        re.compile(rf"{_NUMBER} \d|graphql error|not a valid image|invalid disappearing timer"),
        CallFailure.REFUSED_BY_WHATSAPP,
    ),
)
# The library caches the members of a group, so only the refused message may show that the group is gone.
_GROUP_FAILURES = (
    (re.compile(r"server returned error 404\b"), SendFailure.GROUP_NOT_FOUND),
    (re.compile(r"server returned error 403\b"), SendFailure.NOT_IN_GROUP),
)


_CALL_OF_GROUP_FAILURES = ((re.compile(rf"{_NUMBER} 404\b"), CallFailure.GROUP_NOT_FOUND),)


class LoaderError(Exception):
    """The installed neonize is not built as service.worker.library.loader expects."""


def cause_of(error: str) -> Cause:
    """Return why a connection ended, from the text of the library's error."""
    # Some of the patterns take quadratic time, so bound the text.
    error = error[:LONGEST_TEXT_CHARACTERS]
    return next((cause for pattern, cause in _CONNECTION_CAUSES if pattern.search(error)), Cause.CLIENT_ERROR)


def is_certain(error: str) -> bool:
    """Return whether a failed send certainly reached no recipient; if in doubt, false, to avoid a duplicate."""
    return _NOTHING_WAS_SENT.search(error) is not None


def call_failure(error: str, group: str = "") -> CallFailure | None:
    """Return why WhatsApp certainly did not carry a call out; None if it may have. `group`: the JID it was about."""
    table = (*_CALL_OF_GROUP_FAILURES, *_CALL_FAILURES) if group else _CALL_FAILURES
    return next((failure for pattern, failure in table if pattern.search(error)), None)


def lost_connection(error: str) -> CallFailure | None:
    """Return SESSION_NOT_CONNECTED if nothing left because there was no connection to WhatsApp; otherwise None."""
    return CallFailure.SESSION_NOT_CONNECTED if _NOT_CONNECTED.search(error) else None


def send_failure(error: str, to: str) -> SendFailure:
    """Return why a message to this JID was certainly not sent."""
    table = (*_GROUP_FAILURES, *_SEND_FAILURES) if to.endswith("@g.us") else _SEND_FAILURES
    return next((failure for pattern, failure in table if pattern.search(error)), SendFailure.NOT_SENT)
