"""One session: a WhatsApp client, connected once, and the commands of its node until one of the two is gone.

Threads: the main one reads commands; one is in `connect()`; two are the pulse; each call to WhatsApp has one of its
own, because the library gives it no deadline (fact 17). The library calls back on threads of Go's, one event after
another.
"""

import datetime
import importlib
import logging
import socket
import threading
from typing import Any

from neonize.proto import Neonize_pb2 as neonize

from service.domain.disconnects import Cause
from service.pool import wire
from service.whatsapp import errors, login_status, translate
from service.whatsapp.calls import Calls
from service.whatsapp.client import Callbacks, Client
from service.whatsapp.ending import NODE_GONE, Ending
from service.whatsapp.lines import LogLines
from service.whatsapp.pulse import Pulse
from service.whatsapp.reports import Reports
from service.whatsapp.unconfirmed import Unconfirmed
from service.whatsapp.watchdog import Watchdog
from zap.worker.v1 import frames_pb2

_DISCONNECT_SECONDS = 1.0
_QUIET_SECONDS = 0.1
_DRAIN_SECONDS = 3.0
_ORPHAN_DRAIN_SECONDS = 1.0
_DELETION_SECONDS = 0.4


class Session:
    """Everything in this process. `run` does not return."""

    def __init__(self, connection: socket.socket, start: frames_pb2.Start, watchdog: Watchdog) -> None:
        self._connection = connection
        self._start = start
        self._watchdog = watchdog
        self._unconfirmed = Unconfirmed()
        self._reports = Reports(connection, self._unconfirmed)
        self._lines = LogLines(self._reports.offer)
        self._ending = Ending(self._reports)
        self._codes = login_status.CodesShown()
        self._code_shown = threading.Event()
        self._device_saved = bool(start.jid)
        self._logged_in = False
        self._push_name = ""
        callbacks = Callbacks(self._on_code, self._on_login_status, self._on_event, self._on_log_line)
        self._client = Client(start, callbacks)
        self._calls = Calls(self._client, self._reports.send, self._code_shown)
        self._pulse = Pulse(self._reports.offer, self._client.is_up, self._look_at_push_name)

    def run(self) -> None:
        """Connect, and obey until the end."""
        self._lines.take_over_logging()
        self._pulse.start()
        threading.Thread(target=self._connect, name="connect", daemon=True).start()
        self._obey()

    # --- the connection

    def _connect(self) -> None:
        try:
            self._client.connect()
        except Exception as error:  # noqa: BLE001 - whatever it is: Go may still be connected, and nobody listens (fact 8)
            self._ending.end(errors.cause_of(str(error)), str(error))
        else:
            self._ending.end(Cause.CLIENT_ERROR, "the library's connect() returned")

    def _disconnect(self, drain_limit: float) -> None:
        """Close the connection, and let what the library has already taken from WhatsApp come out."""
        if not self._logged_in:
            return
        closing = threading.Thread(target=self._client.disconnect, name="disconnect", daemon=True)
        closing.start()
        closing.join(_DISCONNECT_SECONDS)
        self._client.drain(_QUIET_SECONDS, drain_limit)

    # --- what the node says

    def _obey(self) -> None:
        while (data := self._next_command()) is not None:
            self._execute(frames_pb2.Command.FromString(data))
        # The node is gone. WhatsApp must be left before the lease can be anyone else's; the watchdog is the hard limit.
        self._reports.close()
        self._disconnect(_ORPHAN_DRAIN_SECONDS)
        self._ending.leave_silently(NODE_GONE)

    def _next_command(self) -> bytes | None:
        try:
            return wire.receive(self._connection)
        except OSError:
            return None

    def _execute(self, command: frames_pb2.Command) -> None:
        match command.WhichOneof("command"):
            case "permit":
                self._watchdog.permit(command.permit.deadline_ns)
            case "confirm":
                self._unconfirmed.confirm(command.confirm.number)
            case "send":
                self._calls.send(command.send)
            case "request_pairing_code":
                self._calls.request_pairing_code(command.request_pairing_code)
            case "logout":
                self._calls.log_out(command.logout)
            case "stop":
                # The node keeps confirming and permitting while the rest is handed over.
                threading.Thread(target=self._stop, name="stop", daemon=True).start()
            case unknown:
                self._lines.write("error", "zap", f"a command that this process does not know: {unknown}")

    def _stop(self) -> None:
        self._disconnect(_DRAIN_SECONDS)
        self._ending.end(Cause.STOPPED)

    # --- what the library says

    def _on_code(self, text: str) -> None:
        position, lifetime = self._codes.show(text)
        code = frames_pb2.CodeShown(text=text, position=position)
        code.lifetime.FromTimedelta(lifetime)
        self._reports.send(frames_pb2.Frame(code_shown=code))
        self._code_shown.set()

    def _on_login_status(self, status: str) -> None:
        if (cause := login_status.cause_of(status, self._codes)) is not None:
            self._ending.end_soon(cause, f"pairing: {status}")

    def _on_log_line(self, level: str, logger: str, line: str) -> None:
        self._lines.write(level, f"whatsmeow.{logger}", line)

    def _on_event(self, event: Any) -> None:
        match event:
            case neonize.Message():
                self._report_numbered(translate.message(event))
            case neonize.Receipt():
                self._report_numbered(translate.receipt(event))
            case neonize.Connected():
                self._on_connected()
            case neonize.Disconnected():
                self._pulse.doubt()
                self._reports.send(frames_pb2.Frame(disconnected=frames_pb2.Disconnected()))
            case neonize.KeepAliveTimeout():
                self._pulse.doubt()
                timeout = frames_pb2.KeepAliveTimeout(errors=event.ErrorCount)
                self._reports.send(frames_pb2.Frame(keep_alive_timeout=timeout))
            case neonize.KeepAliveRestored():
                self._pulse.trust()
                self._reports.send(frames_pb2.Frame(keep_alive_restored=frames_pb2.KeepAliveRestored()))
            case neonize.PairStatus():
                self._on_pair_status(event)
            case neonize.StreamError():
                self._lines.write("warning", "whatsmeow", f"stream error {event.Code}; the library reconnects")
            case _:
                self._on_end(event)

    def _on_end(self, event: Any) -> None:
        match event:
            case neonize.LoggedOut() if not self._device_saved:
                self._ending.end(Cause.PAIRING_REFUSED, neonize.ConnectFailureReason.Name(event.Reason))
            case neonize.LoggedOut():
                # whatsmeow tells first and deletes its rows then.
                self._ending.end_with(translate.logged_out(event), linger=_DELETION_SECONDS)
            case neonize.StreamReplaced():
                self._ending.end(Cause.STREAM_REPLACED)
            case neonize.TemporaryBan():
                self._ending.end_with(translate.temporary_ban(event, datetime.datetime.now(datetime.UTC)))
            case neonize.ClientOutdated():
                self._ending.end(Cause.CLIENT_OUTDATED)
            case neonize.ConnectFailure():
                self._ending.end_with(translate.connect_failure(event))

    def _on_connected(self) -> None:
        self._logged_in = True
        self._device_saved = True
        self._pulse.trust()
        device = self._client.device()
        self._push_name = device.PushName
        self._reports.send(translate.connected(device))

    def _on_pair_status(self, event: Any) -> None:
        if event.Status != neonize.PairStatus.SUCCESS:
            self._ending.end_soon(Cause.SCAN_REJECTED, event.Error)
            return
        self._device_saved = True
        self._reports.send(translate.device_saved(event, translate.lid_of(self._client.device())))

    def _look_at_push_name(self) -> None:
        """The account's own name comes some time after the login, and neonize has no event for it."""
        if (name := self._client.device().PushName) != self._push_name:
            self._push_name = name
            self._reports.send(frames_pb2.Frame(push_name=frames_pb2.PushName(name=name)))

    def _report_numbered(self, frame: frames_pb2.Frame | None) -> None:
        if frame is not None:
            self._reports.send_numbered(frame)


def call_preload(target: str) -> None:
    """Call "module:function", the seam by which tests aim the client at a simulator."""
    module, _, function = target.partition(":")
    logging.getLogger(__name__).warning("calling %s before the first connect", target)
    getattr(importlib.import_module(module), function)()


def reset_logging() -> None:
    """Undo what neonize set up at import: a handler that writes to stderr whatever it gets."""
    for handler in list(logging.root.handlers):
        logging.root.removeHandler(handler)
    logging.root.setLevel(logging.INFO)
