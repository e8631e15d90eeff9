"""Keeps what is known of a session's device and of its last failed logins, for the report of the session's end."""

import datetime
from dataclasses import dataclass

from service.domain.disconnect_policy import Cause
from service.worker.session.log_parser import LoginFailed
from zap.worker.v1 import frames_pb2


@dataclass
class LoginState:
    """Is written by the library's callbacks and read when the session ends."""

    is_device_saved: bool
    may_receive: bool = False
    """Whether there may be a connection to close."""
    failure: LoginFailed | None = None
    """The last refused login in the library's log."""
    reconnect_error: str = ""
    """The last failed reconnect in the library's log; empty once a login has succeeded."""

    def ended(self, cause: Cause, detail: str) -> frames_pb2.Ended:
        """Return the last frame, with the login failure from the log where that is more precise than the cause."""
        failed = self.failure
        is_refused_pairing = cause is Cause.PAIRING_REFUSED and failed is not None and not failed.is_unlinking
        if failed is None or not (is_refused_pairing or cause is Cause.CLIENT_ERROR):
            return frames_pb2.Ended(cause=cause.name, detail=detail)
        return failed.ended(datetime.datetime.now(datetime.UTC))

    def unlinked(self, failed: LoginFailed) -> frames_pb2.Ended:
        """Return the last frame for the case that no event comes.

        neonize delivers the first event once it has read the device's JID. If whatsmeow has deleted the device by then
        (a login that is refused right after the scan), neonize waits forever.
        """
        if not self.is_device_saved:
            return frames_pb2.Ended(cause=Cause.PAIRING_REFUSED.name, detail=failed.detail)
        return failed.ended(datetime.datetime.now(datetime.UTC))
