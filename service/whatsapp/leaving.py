"""How a session's process goes off WhatsApp: what the library has in hand comes out, and is written down.

A message that the library has decrypted and not handed over is lost with its process: its keys are used up. So whoever
leaves closes the connection, and waits until the library has fallen silent, towards its database too.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable

from service.whatsapp.bequest import Bequest
from service.whatsapp.client import Client
from service.whatsapp.database_probe import DatabaseProbe
from service.whatsapp.relay.relay import Awaited, Relay
from service.whatsapp.reports import Reports
from service.whatsapp.unconfirmed import Unconfirmed
from service.whatsapp.watchdog import Watchdog
from zap.worker.v1 import frames_pb2

DRAIN_SECONDS = 3.0
"""How long the library may take to hand over what it has in hand, while the node lives."""
ORPHAN_DRAIN_SECONDS = 1.0
"""The same where nobody waits for this process any more."""
_DISCONNECT_SECONDS = 1.0
_QUIET_SECONDS = 0.1
_ANSWER_SECONDS = 1.0
"""How long the library is waited for that waits for its database, before another look at that."""
_CONFIRM_SECONDS = 1.0
"""How long a process that has left WhatsApp waits for the node to confirm what it said."""
_LATE_SECONDS = 1.0
"""How long it writes what the node has not heard, or not confirmed by then, while the node lives."""
_WATCHDOG_MARGIN = 0.1
"""How long before its permit's end a process gives up to write."""


class Leaving:
    """The way off. Any thread may take it; it has no say in whether and when the process ends."""

    def __init__(
        self,
        start: frames_pb2.Start,
        watchdog: Watchdog,
        unconfirmed: Unconfirmed,
        reports: Reports,
        relay: Relay,
        client: Client,
        say: Callable[[str, str, str], None],
    ) -> None:
        """`say` takes a level, a logger and a sentence for the log."""
        self._start = start
        self._watchdog = watchdog
        self._unconfirmed = unconfirmed
        self._reports = reports
        self._relay = relay
        self._client = client
        self._say = say
        self._probe = DatabaseProbe(start.log_url, f"zap-service/{start.session_id}/probe", relay.distrust_silence)
        self.may_receive = False
        """Messages may have come in: there is something to disconnect from."""
        self._is_off = self._has_told = False

    def disconnect(self, drain_limit: float) -> bool:
        """Close the connection, and let what the library has taken from WhatsApp come out; whether that is all."""
        if not self.may_receive:
            return True
        closing = threading.Thread(target=self._client.disconnect, name="disconnect", daemon=True)
        closing.start()
        closing.join(min(_DISCONNECT_SECONDS, drain_limit))
        is_quiet = self._drain(drain_limit)
        self._is_off = True
        if not is_quiet:
            self._say("warning", "zap", f"the library was still busy {drain_limit:.1f} s after it left WhatsApp")
        return is_quiet

    def disconnect_without_database(self) -> None:
        """The same, and stay off WhatsApp until the library has finished what it had begun, if its database lets it.

        The keys of a message may be used up, and it is here and nowhere else. So this process stays while the relay
        replaces what is lost, and while Postgres is silent to everybody: what it was asked it may carry out when it
        wakes up. Another process could do nothing meanwhile either.
        """
        if self._awaited() is not Awaited.NOTHING:
            self._tell_of_staying()
        is_quiet = self.disconnect(_ANSWER_SECONDS if self._awaited() is Awaited.ANSWER else DRAIN_SECONDS)
        # Nothing is waited for, and it is not quiet: what it waits for never comes, or it is busy otherwise.
        while not is_quiet and self._awaited() is not Awaited.NOTHING:
            # Perhaps nothing was asked yet when the database was lost.
            self._tell_of_staying()
            is_quiet = self._drain(_ANSWER_SECONDS)

    def settle(self) -> None:
        """See to it that what was reported is in the log: by the node, or, if that is gone, by this process itself."""
        # Who has not left WhatsApp must not wait: Go may be confirming messages that nobody hears of.
        if self._is_off:
            self._unconfirmed.wait_until_settled(_CONFIRM_SECONDS)
        # What came out of the library behind the last word the node has not heard. Whoever writes, it is there once.
        until = self._watchdog.deadline - _WATCHDOG_MARGIN
        if self._reports.is_heard:
            until = min(until, time.monotonic() + _LATE_SECONDS) if self._is_off else 0.0
        if until > time.monotonic() and (self._unconfirmed.all() or self._more_may_come()):
            note(Bequest(self._start, self._unconfirmed, self._more_may_come).write(until))

    def _awaited(self) -> Awaited:
        """What the library waits for. If it is a server, see whether that answers others."""
        if (awaited := self._relay.awaits) is Awaited.ANSWER:
            self._probe.start()
        return awaited

    def _drain(self, limit: float) -> bool:
        return self._client.drain(_QUIET_SECONDS, limit, lambda: self._relay.quiet_since)

    def _tell_of_staying(self) -> None:
        """It can take long until this process ends, and nothing is heard of WhatsApp from now on."""
        if not self._has_told:
            self._has_told = True
            self._reports.send(frames_pb2.Frame(disconnected=frames_pb2.Disconnected()))

    def _more_may_come(self) -> bool:
        """Whether the library, off WhatsApp, is still busy with its last messages.

        A database that is merely slow may carry out what it was asked after we are gone. Then the keys of a message are
        used up, and nobody has it.
        """
        return self._is_off and not self._client.is_quiet(_QUIET_SECONDS, self._relay.quiet_since)


def note(words: str) -> None:
    """For whoever reads what this process left: its node, if that lives after all."""
    with contextlib.suppress(OSError):  # the file is full
        sys.stderr.write(f"{words}\n")
