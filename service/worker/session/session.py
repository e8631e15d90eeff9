"""Runs one session: connects a WhatsApp client once and executes the node's commands, until the session ends.

Threads: one loads the library and stays in `connect()`. One polls the connection. One is the database relay, with a
further thread for each dial. Each call to WhatsApp has a separate one, because the library gives it no deadline. The
library calls back on Go's threads, one event after another. The process (`worker/process/host.py`) has two more, which
call this session.
"""

import faulthandler
import importlib
import io
import logging
import threading
from typing import Any

from service.domain.disconnect_policy import Cause
from service.pgrelay.ack_gate import AckGate
from service.pgrelay.relay import ANSWER_TIMEOUT_S, Relay
from service.worker import errors
from service.worker.inbound import translate
from service.worker.library import loader, media_library
from service.worker.process.frame_writer import FrameWriter
from service.worker.process.log_forwarder import LogForwarder
from service.worker.process.session_end import SessionEnd
from service.worker.process.stall_detector import StallDetector
from service.worker.session import qr_sequence
from service.worker.session.client import Callbacks, Client, prepare_store
from service.worker.session.commands import CommandExecutor
from service.worker.session.connection_monitor import ConnectionMonitor, Verdict
from service.worker.session.event_handler import EventHandler
from service.worker.session.log_parser import LoginFailed, ReconnectFailed, ResendFailed, parse_line
from service.worker.session.login_state import LoginState
from service.worker.session.media_calls import MediaCalls
from service.worker.session.outbox import Outbox
from zap.worker.v1 import frames_pb2

_STDERR = 2
_UNLINK_EVENT_TIMEOUT_S = 2.0
"""How long to wait for the event of an unlinked device after the log has reported it."""
_DISCONNECT_TIMEOUT_S = 1.0
_CLEARING_TIMEOUT_S = 0.5
"""How long a stop waits until the library's buffer holds no plaintext of acknowledged messages."""
_CALLBACK_TIMEOUT_S = 2.0
"""How long a stop waits for the running callback. An event that is not committed by then was not acknowledged."""


class ClientSession:
    """Owns every part of one session. Its process owns the socket, and decides what the session's end means for it."""

    def __init__(self, start: frames_pb2.Start, writer: FrameWriter, end: SessionEnd) -> None:
        self._start = start
        self._end = end
        self._outbox = Outbox(start.session_id, writer)
        self._log = LogForwarder(self._outbox.offer)
        self._codes = qr_sequence.QrSequence()
        self._code_shown = threading.Event()
        self._is_leaving = False
        self._login = LoginState(is_device_saved=bool(start.jid))
        self._gate = gate = AckGate(self._log_relay)
        # An upgrade of whatsmeow's tables can take long.
        timeout = None if start.prepare_store else ANSWER_TIMEOUT_S
        self._relay = Relay(start.database, start.database_url, gate, self._on_database_lost, self._log_relay, timeout)
        callbacks = Callbacks(self._on_code, self._on_login_status, self._on_event, self._on_log_line)
        self._client = Client(start, self._relay.address, gate, callbacks)
        self._event_stall = StallDetector("an event of the library does not come to its end")
        self._checked_event = 0
        media = MediaCalls(
            lambda *file: media_library.upload_through(self._client.library, *file),
            lambda words: self._leave(Cause.PROCESS_STALLED, words),
        )
        self._commands = CommandExecutor(self._client, self._outbox.send, self._code_shown, media)
        self._monitor = ConnectionMonitor()
        self._events = EventHandler(self._client, self._login, gate, self._monitor, self._outbox, self._log, self._end)

    # --- worker.process.host.SessionHandler

    def start(self) -> None:
        """Start the database relay, load the library and connect, on other threads."""
        self._relay.start()
        threading.Thread(target=self._work, name="connect", daemon=True).start()

    def execute(self, command: frames_pb2.Command, attachment: io.FileIO | None = None) -> None:
        """Execute a command of the node, with the file that came with it."""
        match command.WhichOneof("command"):
            case "confirm":
                self._outbox.committed(command.confirm.number)
            case "call":
                self._commands.execute(command.call, attachment)
            case "stop":
                self._stop()
            case unknown:
                self._log.write("error", "zap", f"Unknown command from the node; ignored: {unknown}")

    def find_stall(self) -> str:
        """Return a description of the stall if an event of the library is never finished, or else an empty text."""
        event = self._client.current_event
        # To wait for the node or the database is backpressure, not a stall of this process.
        has_waited = self._outbox.waited_for_node() or self._client.is_asking_store
        if not event or event != self._checked_event or has_waited:
            self._event_stall.progressed()
        self._checked_event = event
        return self._event_stall.check()

    def each_second(self) -> None:
        """Send the ephemeral events that waited, and act on what the monitor has concluded."""
        self._events.ephemeral.begin_second()
        self._act_on(self._monitor.verdict())

    # --- the connection

    def _work(self) -> None:
        """Load the library and stay connected; end the session when that ends."""
        try:
            library = loader.load_library(restored=bool(self._start.jid))
            if self._start.preload:
                call_preload(self._start.preload)
            if self._start.prepare_store:
                words = prepare_store(library, self._relay.address, self._log.write)
                self._end.end(Cause.CLIENT_ERROR if words else Cause.STOPPED, words)
                return
            self._client.open()
        except BaseException as error:  # noqa: BLE001 - a preload's SystemExit, too, would end only this thread
            self._end.end(Cause.CLIENT_ERROR, _words(error))
            return
        self._connect()

    def _connect(self) -> None:
        self._monitor.connecting()
        # Messages arrive before the library's "connected" event.
        self._login.may_receive = bool(self._start.jid)
        # In both cases Go may still be connected and acknowledge events that no callback receives (docs/neonize.md).
        try:
            self._client.connect()
        except Exception as error:  # noqa: BLE001 - the library raises any exception
            self._end.end_with(self._login.ended(errors.cause_of(str(error)), str(error)))
        else:
            self._end.end_with(self._login.ended(Cause.CLIENT_ERROR, "the library's connect() returned"))

    def _act_on(self, verdict: Verdict) -> None:
        if self._is_leaving:
            return
        match verdict:
            case Verdict.LOST:
                self._log.write("warning", "zap", "The library lost its connection without an event; reported as lost.")
                self._outbox.send(frames_pb2.Frame(disconnected=frames_pb2.Disconnected()))
            case Verdict.BACK:
                self._outbox.send(translate.connected(self._client.device()))
            case Verdict.LEAVE:
                cause, words = self._why_not_connected()
                if cause is Cause.CONNECT_STALLED:
                    faulthandler.dump_traceback(file=_STDERR, all_threads=True)
                self._leave(cause, words)

    def _why_not_connected(self) -> tuple[Cause, str]:
        if words := self._relay.trouble:
            return Cause.DATABASE_LOST, words
        cause = errors.cause_of(self._login.reconnect_error)
        return Cause.CONNECT_STALLED if cause is Cause.CLIENT_ERROR else cause, self._login.reconnect_error

    def _leave(self, cause: Cause, detail: str = "") -> None:
        """Disconnect, let the running callback return, and end the session, on a new thread because that can block."""
        self._is_leaving = True

        def leave() -> None:
            try:
                self._disconnect()
            finally:
                # End the session even if the disconnect fails, because nothing else does.
                self._end.end(cause, detail)

        try:
            threading.Thread(target=leave, name=f"leave-{cause.name}", daemon=True).start()
        except RuntimeError as error:
            self._end.end(cause, f"{detail}; {error}")

    def _disconnect(self) -> None:
        """Close the connection to WhatsApp, with timeouts, because a connect in flight can block that."""
        if not self._login.may_receive:
            return
        self._gate.shut()
        closing = threading.Thread(target=self._client.disconnect, name="disconnect", daemon=True)
        closing.start()
        closing.join(_DISCONNECT_TIMEOUT_S)
        self._client.finish_callback(_CALLBACK_TIMEOUT_S)
        self._relay.finish(_CLEARING_TIMEOUT_S)

    # --- the database

    def _log_relay(self, level: str, words: str) -> None:
        self._log.write(level, "relay", words)

    def _on_database_lost(self, words: str) -> None:
        """End the session: the library waits for an answer that never comes, and its event is not acknowledged."""
        self._end.end_with(self._login.ended(Cause.DATABASE_LOST, words))

    def _stop(self) -> None:
        if self._start.prepare_store:
            words = self._relay.trouble or "making the library's tables took too long"
            self._end.end(Cause.DATABASE_LOST, words)
        else:
            # The node keeps committing events and renewing the run permit until this session ends.
            self._leave(Cause.STOPPED)

    # --- callbacks of the library

    def _on_code(self, text: str) -> None:
        position, lifetime = self._codes.show(text)
        code = frames_pb2.CodeShown(text=text, position=position)
        code.lifetime.FromTimedelta(lifetime)
        self._monitor.showing_code(lifetime.total_seconds())
        self._outbox.send(frames_pb2.Frame(code_shown=code))
        self._code_shown.set()

    def _on_login_status(self, status: str) -> None:
        if (cause := qr_sequence.cause_of(status, self._codes)) is not None:
            # A library that logs in before it has processed its own scan reports an unexpected state.
            self._end.end_soon(self._login.ended(cause, f"pairing: {status}"), unless=lambda: self._monitor.is_up)

    def _on_event(self, event: Any) -> None:
        # The handler asks the client, so it is made after it.
        self._events.handle(event)

    def _on_log_line(self, level: str, logger: str, line: str) -> None:
        self._log.write(level, f"whatsmeow.{logger}", line)
        match parse_line(logger, line):
            case LoginFailed() as failed:
                self._login.failure = failed
                if failed.is_only_logged:
                    self._leave(failed.cause, failed.detail)
                if failed.is_unlinking:
                    self._end.end_soon(self._login.unlinked(failed), _UNLINK_EVENT_TIMEOUT_S)
                if failed.is_fatal:
                    # Go would panic once this returns, so block until the process ends.
                    threading.Event().wait()
            case ReconnectFailed() as failed:
                self._login.reconnect_error = failed.words
                if failed.is_last:
                    self._leave(*self._why_not_connected())
            case ResendFailed() as failed:
                self._outbox.offer(translate.resend_failed(failed))


def call_preload(target: str) -> None:
    """Call "module:function", by which tests point the client at a simulator."""
    module, _, function = target.partition(":")
    logging.getLogger(__name__).warning("Calling %s before the first connect.", target)
    getattr(importlib.import_module(module), function)()


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
