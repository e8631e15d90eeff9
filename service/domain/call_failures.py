"""List why WhatsApp did not carry out a call other than a send: kinds, each with the error that its caller gets.

`service.worker.errors` derives the kind from the library's error.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from service.domain.errors import (
    FailedPrecondition,
    Forbidden,
    NotFound,
    OutcomeUnknown,
    ResourceExhausted,
    Unavailable,
    ZapError,
)


class CallFailure(enum.Enum):
    """Names the kinds of failure. The names never change: callers see them as reasons."""

    #: The session lost its connection before the call left.
    SESSION_NOT_CONNECTED = "SESSION_NOT_CONNECTED"
    #: WhatsApp knows no account of this number.
    RECIPIENT_NOT_ON_WHATSAPP = "RECIPIENT_NOT_ON_WHATSAPP"
    #: WhatsApp knows no such group (404).
    GROUP_NOT_FOUND = "GROUP_NOT_FOUND"
    #: The account is not a member of the group (403).
    NOT_IN_GROUP = "NOT_IN_GROUP"
    #: The account may not do this, usually because it is no administrator (401, 403).
    NOT_ALLOWED = "NOT_ALLOWED"
    #: The invite link or code is wrong or was reset.
    INVITE_INVALID = "INVITE_INVALID"
    #: The person or group has no picture.
    PICTURE_NOT_FOUND = "PICTURE_NOT_FOUND"
    #: The person's privacy settings hide the picture.
    PICTURE_HIDDEN = "PICTURE_HIDDEN"
    #: The account has no name, without which it cannot show its presence.
    NAME_NOT_SET = "NAME_NOT_SET"
    #: WhatsApp knows nothing by this name (404).
    WHATSAPP_NOT_FOUND = "WHATSAPP_NOT_FOUND"
    #: WhatsApp's media host does not take the file (400, 413, 415).
    UPLOAD_REFUSED = "UPLOAD_REFUSED"
    #: The file did not reach WhatsApp's media host, or the host failed.
    UPLOAD_FAILED = "UPLOAD_FAILED"
    #: The account asks too much in too short a time (420, 429).
    RATE_LIMITED = "RATE_LIMITED"
    #: WhatsApp refused with any other code.
    REFUSED_BY_WHATSAPP = "REFUSED_BY_WHATSAPP"
    #: WhatsApp did not answer in time, or the process ended.
    WHATSAPP_SILENT = "WHATSAPP_SILENT"
    #: The library failed in another way.
    CALL_FAILED = "CALL_FAILED"


@dataclass(frozen=True)
class _Row:
    error: type[ZapError]
    message: str


_TABLE: Mapping[CallFailure, _Row] = {
    CallFailure.SESSION_NOT_CONNECTED: _Row(Unavailable, "the session is not connected now; nothing was done"),
    CallFailure.RECIPIENT_NOT_ON_WHATSAPP: _Row(
        NotFound, "no WhatsApp account has this number; check its country code"
    ),
    CallFailure.GROUP_NOT_FOUND: _Row(NotFound, "there is no such group; check its JID"),
    CallFailure.NOT_IN_GROUP: _Row(FailedPrecondition, "the session's account is not in the group"),
    CallFailure.NOT_ALLOWED: _Row(
        Forbidden, "WhatsApp does not allow it to this account; perhaps it is no administrator"
    ),
    CallFailure.INVITE_INVALID: _Row(NotFound, "the invite link is wrong or was reset; ask for the current one"),
    CallFailure.PICTURE_NOT_FOUND: _Row(NotFound, "there is no picture"),
    CallFailure.PICTURE_HIDDEN: _Row(Forbidden, "the person's privacy settings hide the picture"),
    CallFailure.NAME_NOT_SET: _Row(
        FailedPrecondition, "the account has no name; set one with ProfileService.SetName, or on the phone"
    ),
    CallFailure.WHATSAPP_NOT_FOUND: _Row(NotFound, "WhatsApp does not know it"),
    CallFailure.UPLOAD_REFUSED: _Row(FailedPrecondition, "WhatsApp does not take this file; the same is refused again"),
    CallFailure.UPLOAD_FAILED: _Row(Unavailable, "the file did not get to WhatsApp; upload it again"),
    CallFailure.RATE_LIMITED: _Row(ResourceExhausted, "the account asks too much of WhatsApp; wait for some minutes"),
    CallFailure.REFUSED_BY_WHATSAPP: _Row(FailedPrecondition, "WhatsApp refused it; the same call is refused again"),
    CallFailure.WHATSAPP_SILENT: _Row(
        OutcomeUnknown, "WhatsApp did not answer; it may have been done: look before a retry"
    ),
    CallFailure.CALL_FAILED: _Row(Unavailable, "the WhatsApp library failed; nothing was done"),
}


def call_error(failure: CallFailure, session_id: str, detail: str) -> ZapError:
    """Return the error for a caller. `detail`: the library's words."""
    row = _TABLE[failure]
    metadata = {"session_id": session_id, "detail": detail}
    return row.error(f"{row.message} ({detail})" if detail else row.message, reason=failure.value, metadata=metadata)
