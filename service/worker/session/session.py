"""One session: a WhatsApp client, connected once, and the commands of its node until one of the two is gone.

Threads: the main one reads commands from the first moment on, so that it hears of its node's end whatever else goes on;
one loads the library and stays in `connect()`; two are the pulse; one is the database relay, with a thread for each
dial; each call to WhatsApp has one of its own, because the library gives it no deadline (fact 17). The library calls
back on threads of Go's, one event after another.
"""

import datetime
import faulthandler
import importlib
import logging
import os
import select
import socket
import threading
from typing import Any

from neonize.proto import Neonize_pb2 as neonize

from service.domain.disconnect_policy import Cause
from service.pgrelay.ack_gate import AckGate
from service.pgrelay.relay import ANSWER_TIMEOUT_S, Relay
from service.wire import framing
from service.worker import errors
from service.worker.inbound import messages, translate
from service.worker.inbound.events import registry
from service.worker.library import loader
from service.worker.process.exit import NODE_GONE, ProcessExit
from service.worker.process.frame_writer import FrameWriter
from service.worker.process.log_forwarder import LogForwarder
from service.worker.process.stall_detector import StallDetector
from service.worker.process.watchdog import Watchdog
from service.worker.session import qr_sequence
from service.worker.session.client import Callbacks, Client, prepare_store
from service.worker.session.commands import CommandExecutor
from service.worker.session.connection_monitor import ConnectionMonitor, Verdict
from service.worker.session.ephemeral_throttle import EphemeralThrottle
from service.worker.session.heartbeat import Heartbeat
from service.worker.session.log_parser import LoginFailed, ReconnectFailed, ResendFailed, parse_line
from zap.worker.v1 import frames_pb2, inbound_pb2

_STDERR = 2
_DELETION_SECONDS = 0.4
_TOLD_SECONDS = 2.0
"""How long the event may take that says what the log has said: that this device is unlinked."""
_COMMAND_POLL_MS = 500
"""How often the reader of commands shows that it would read one."""
_DISCONNECT_TIMEOUT_S = 1.0
_CLEARING_TIMEOUT_S = 0.5
"""How long a stop waits until no plaintext of what is acknowledged is left in the library's buffer."""
_CALLBACK_TIMEOUT_S = 2.0
"""How long a stop waits for the callback in hand. What is not committed by then was not acknowledged."""


class Session:
    """Everything in this process. `run` does not return."""

    def __init__(self, connection: socket.socket, start: frames_pb2.Start, watchdog: Watchdog) -> None:
        self._connection = connection
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self._start = start
        self._watchdog = watchdog
        self._reports = FrameWriter(connection)
        self._ending = ProcessExit(self._reports)
        self._lines = LogForwarder(self._reports.offer)
        self._fleeting = EphemeralThrottle(self._reports.offer)
        self._codes = qr_sequence.QrSequence()
        self._code_shown = threading.Event()
        self._device_saved = bool(start.jid)
        self._is_leaving = self._is_first_login_over = False
        self._may_receive = False
        """There may be a connection to close."""
        self._push_name = ""
        self._failed_login: LoginFailed | None = None
        self._failed_reconnect = ""
        self._gate = gate = AckGate(self._say_of_relay)
        # Tables that whatsmeow upgrades may take their time.
        timeout = None if start.prepare_store else ANSWER_TIMEOUT_S
        self._relay = Relay(
            start.database, start.database_url, gate, self._on_database_lost, self._say_of_relay, timeout
        )
        callbacks = Callbacks(self._on_code, self._on_login_status, self._on_event, self._on_log_line)
        self._client = Client(start, self._relay.address, gate, callbacks)
        self._vitals = StallDetector(lambda: self._client.event_in_hand, self._has_waited)
        self._calls = CommandExecutor(self._client, self._reports.send, self._code_shown)
        self._patience = ConnectionMonitor()
        self._pulse = Heartbeat(
            self._tell_progress, self._client.is_up, self._look_at_push_name, self._patience, self._on_verdict
        )

    def run(self) -> None:
        """Connect, and obey until the end."""
        self._lines.take_over_logging()
        self._pulse.start()
        self._relay.start()
        threading.Thread(target=self._work, name="connect", daemon=True).start()
        try:
            self._obey()
        except Exception as error:  # noqa: BLE001 - the node is told, whatever it is
            self._ending.end(Cause.CLIENT_ERROR, _words(error))
        # Another thread is ending this process, and has a limit.
        threading.Event().wait()

    # --- the connection

    def _work(self) -> None:
        """Load the library and be connected. Whatever ends this ends the process."""
        try:
            library = loader.load_library(restored=bool(self._start.jid))
            if self._start.preload:
                call_preload(self._start.preload)
            if self._start.prepare_store:
                words = prepare_store(library, self._relay.address, self._lines.write)
                self._ending.end(Cause.CLIENT_ERROR if words else Cause.STOPPED, words)
                return
            self._client.open()
        except BaseException as error:  # noqa: BLE001 - an exit that a preload asks for, too, would end but this thread
            self._ending.end(Cause.CLIENT_ERROR, _words(error))
            return
        self._connect()

    def _connect(self) -> None:
        self._patience.connecting()
        # Messages come in before the library says "connected".
        self._may_receive = bool(self._start.jid)
        # However it ends: Go may still be connected, and no callback takes its events (fact 8).
        try:
            self._client.connect()
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._ending.end_with(self._ended(errors.cause_of(str(error)), str(error)))
        else:
            self._ending.end_with(self._ended(Cause.CLIENT_ERROR, "the library's connect() returned"))

    def _ended(self, cause: Cause, detail: str) -> frames_pb2.Ended:
        """The last word, or what the log said of a login if that is more than the library has a word for."""
        failed = self._failed_login
        is_refused_pairing = cause is Cause.PAIRING_REFUSED and failed is not None and not failed.is_unlinking
        if failed is None or not (is_refused_pairing or cause is Cause.CLIENT_ERROR):
            return frames_pb2.Ended(cause=cause.name, detail=detail)
        return failed.ended(datetime.datetime.now(datetime.UTC))

    def _on_verdict(self, verdict: Verdict) -> None:
        if self._is_leaving:
            return
        match verdict:
            case Verdict.LOST:
                self._lines.write("warning", "zap", "the library does not say that it is connected, and did not tell")
                self._reports.send(frames_pb2.Frame(disconnected=frames_pb2.Disconnected()))
            case Verdict.BACK:
                self._reports.send(translate.connected(self._client.device()))
            case Verdict.LEAVE:
                cause, words = self._why_not_connected()
                if cause is Cause.CONNECT_STALLED:
                    faulthandler.dump_traceback(file=_STDERR, all_threads=True)
                self._leave(cause, words)

    def _why_not_connected(self) -> tuple[Cause, str]:
        if words := self._relay.trouble:
            return Cause.DATABASE_LOST, words
        cause = errors.cause_of(self._failed_reconnect)
        return Cause.CONNECT_STALLED if cause is Cause.CLIENT_ERROR else cause, self._failed_reconnect

    def _leave(self, cause: Cause, detail: str = "") -> None:
        """Disconnect, let the callback in hand return, and end; on a thread of its own, since that takes a while."""
        self._is_leaving = True

        def leave() -> None:
            try:
                self._disconnect()
            finally:
                # Whatever fails: this process is of no use any more, and nothing else ends it.
                self._ending.end(cause, detail)

        try:
            threading.Thread(target=leave, name=f"leave-{cause.name}", daemon=True).start()
        except RuntimeError as error:
            self._ending.end(cause, f"{detail}; {error}")

    def _disconnect(self) -> None:
        """Close the connection to WhatsApp. A connect in flight can hold that up, so it is not waited for for long."""
        if not self._may_receive:
            return
        self._gate.shut()
        closing = threading.Thread(target=self._client.disconnect, name="disconnect", daemon=True)
        closing.start()
        closing.join(_DISCONNECT_TIMEOUT_S)
        self._client.finish_callback(_CALLBACK_TIMEOUT_S)
        self._relay.finish(_CLEARING_TIMEOUT_S)

    # --- the database

    def _say_of_relay(self, level: str, words: str) -> None:
        self._lines.write(level, "relay", words)

    def _on_database_lost(self, words: str) -> None:
        """End: the library waits for an answer that never comes. What it has in hand is not acknowledged."""
        self._ending.end_with(self._ended(Cause.DATABASE_LOST, words))

    # --- what the node says

    def _obey(self) -> None:
        """Read and execute commands until the node is gone; then exit at once: nothing here needs to be saved."""
        while (data := self._next_command()) is not None:
            self._execute(frames_pb2.Command.FromString(data))
        os._exit(NODE_GONE)

    def _next_command(self) -> bytes | None:
        self._vitals.obeying()
        while not self._readable.poll(_COMMAND_POLL_MS):
            self._vitals.obeying()
        try:
            return framing.receive(self._connection)
        except OSError:
            return None

    def _execute(self, command: frames_pb2.Command) -> None:
        match command.WhichOneof("command"):
            case "permit":
                self._watchdog.permit(command.permit.deadline_ns)
            case "confirm":
                self._reports.committed(command.confirm.number)
            case "send":
                self._calls.send(command.send)
            case "request_pairing_code":
                self._calls.request_pairing_code(command.request_pairing_code)
            case "logout":
                self._calls.log_out(command.logout)
            case "stop":
                self._stop()
            case unknown:
                self._lines.write("error", "zap", f"a command that this process does not know: {unknown}")

    def _stop(self) -> None:
        if self._start.prepare_store:
            words = self._relay.trouble or "making the library's tables took too long"
            self._ending.end(Cause.DATABASE_LOST, words)
        else:
            # The node goes on to commit, and to permit, until this process ends.
            self._leave(Cause.STOPPED)

    # --- what the library says

    def _on_code(self, text: str) -> None:
        position, lifetime = self._codes.show(text)
        code = frames_pb2.CodeShown(text=text, position=position)
        code.lifetime.FromTimedelta(lifetime)
        self._patience.showing_code(lifetime.total_seconds())
        self._reports.send(frames_pb2.Frame(code_shown=code))
        self._code_shown.set()

    def _on_login_status(self, status: str) -> None:
        if (cause := qr_sequence.cause_of(status, self._codes)) is not None:
            # On a busy machine the library logs in before it has told itself of the scan, and calls that unexpected.
            self._ending.end_soon(self._ended(cause, f"pairing: {status}"), unless=lambda: self._patience.is_up)

    def _on_log_line(self, level: str, logger: str, line: str) -> None:
        self._lines.write(level, f"whatsmeow.{logger}", line)
        match parse_line(logger, line):
            case LoginFailed() as failed:
                self._failed_login = failed
                if failed.is_untold:
                    self._leave(failed.cause, failed.detail)
                if failed.is_unlinking:
                    self._ending.end_soon(self._unlinked(failed), _TOLD_SECONDS)
                if failed.is_fatal:
                    # Go waits until this returns, and must not go on.
                    threading.Event().wait()
            case ReconnectFailed() as failed:
                self._failed_reconnect = failed.words
                if failed.is_last:
                    self._leave(*self._why_not_connected())
            case ResendFailed() as failed:
                self._reports.offer(translate.resend_failed(failed))

    def _unlinked(self, failed: LoginFailed) -> frames_pb2.Ended:
        """The last word if no event comes.

        neonize hands over the first event once it has read the device's JID. If whatsmeow has deleted the device by
        then (a login that is refused right after the scan) it waits for one for ever.
        """
        if not self._device_saved:
            return frames_pb2.Ended(cause=Cause.PAIRING_REFUSED.name, detail=failed.detail)
        return failed.ended(datetime.datetime.now(datetime.UTC))

    def _on_event(self, event: Any) -> None:
        match event:
            case inbound_pb2.InboundMessage():
                self._on_message(event)
            case neonize.UndecryptableMessage():
                self._on_heard()
                self._commit_one(messages.unreadable(event, self._client.lid_of))
            case neonize.Receipt():
                self._on_heard()
                self._reports.commit(translate.receipts(event, self._client.lid_of))
            case neonize.Connected():
                self._on_connected()
            case neonize.Disconnected():
                self._is_first_login_over = True
                self._patience.disconnected()
                self._reports.send(frames_pb2.Frame(disconnected=frames_pb2.Disconnected()))
            case neonize.KeepAliveTimeout():
                self._patience.disconnected()
                self._reports.send(frames_pb2.Frame(keep_alive_timeout=frames_pb2.KeepAliveTimeout()))
            case neonize.KeepAliveRestored():
                self._patience.connected()
                self._reports.send(frames_pb2.Frame(keep_alive_restored=frames_pb2.KeepAliveRestored()))
            case neonize.PairStatus():
                self._on_pair_status(event)
            case neonize.StreamError():
                self._lines.write("warning", "whatsmeow", f"stream error {event.Code}; the library reconnects")
            case _:
                self._on_happening(event)

    def _on_message(self, event: inbound_pb2.InboundMessage) -> None:
        self._on_heard()
        if self._reports.commit(messages.frames(event, self._client.lid_of), self._gate.wait_for_commit):
            self._gate.log()

    def _on_happening(self, event: Any) -> None:
        if (lasting := registry.DURABLE.get(type(event))) is not None:
            self._on_heard()
            self._commit_one(lasting(event))
        elif (momentary := registry.EPHEMERAL.get(type(event))) is not None:
            self._fleeting.tell(*momentary(event))
        else:
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

    def _on_heard(self) -> None:
        """Something came in from WhatsApp, which has let this process in then.

        The library's own word for that comes behind two queries, which on a busy machine come behind the whole queue of
        what waited for this device. After a connection has ended, what comes in may still be of that one.
        """
        self._patience.heard()
        if not self._is_first_login_over:
            self._on_connected()

    def _on_connected(self) -> None:
        self._is_first_login_over = True
        # By the first message: the library's own word for it, behind that, is no news.
        is_told = self._patience.is_up
        self._device_saved = self._may_receive = True
        self._failed_reconnect = ""
        self._patience.connected()
        self._pulse.ask()
        if is_told:
            return
        device = self._client.device()
        self._push_name = device.PushName
        self._reports.send(translate.connected(device))

    def _on_pair_status(self, event: Any) -> None:
        if event.Status != neonize.PairStatus.SUCCESS:
            self._ending.end_soon(self._ended(Cause.SCAN_REJECTED, event.Error))
            return
        self._device_saved = self._may_receive = True
        self._patience.scanned()
        self._reports.send(translate.device_saved(event, translate.lid_of(self._client.device())))

    def _look_at_push_name(self) -> None:
        """The account's own name comes some time after the login, and neonize has no event for it."""
        if (name := self._client.device().PushName) != self._push_name:
            self._push_name = name
            self._reports.send(frames_pb2.Frame(push_name=frames_pb2.PushName(name=name)))

    def _tell_progress(self, frame: frames_pb2.Frame) -> bool:
        self._fleeting.begin_second()
        if not (stuck := self._vitals.look()):
            return self._reports.offer(frame)
        # On this thread: nothing says any more that this process goes on, so that its node ends it if this does not.
        self._leave_stuck(stuck)
        return False

    def _has_waited(self) -> bool:
        """Return whether an event waits, or has waited, for the node or the database, which the relay watches."""
        return self._reports.waited_for_node() or self._client.is_asking_store

    def _leave_stuck(self, stuck: str) -> None:
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        self._ending.end(Cause.PROCESS_STALLED, stuck)

    def _commit_one(self, frame: frames_pb2.Frame | None) -> None:
        self._reports.commit(() if frame is None else (frame,))


def call_preload(target: str) -> None:
    """Call "module:function", the seam by which tests aim the client at a simulator."""
    module, _, function = target.partition(":")
    logging.getLogger(__name__).warning("calling %s before the first connect", target)
    getattr(importlib.import_module(module), function)()


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def reset_logging() -> None:
    """Undo what neonize set up at import: a handler that writes to stderr whatever it gets."""
    for handler in list(logging.root.handlers):
        logging.root.removeHandler(handler)
    logging.root.setLevel(logging.INFO)
