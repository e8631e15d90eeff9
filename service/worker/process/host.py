"""Runs this process for its sessions: executes the node's commands, sends heartbeats, and ends with its node.

Two threads: the main one reads commands from the start, so that it always notices its node's death; the other sends
heartbeats. What a session does, and on which threads, is the session's own affair (`worker/session/session.py`).
"""

import faulthandler
import functools
import io
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

from service.domain.disconnect_policy import Cause
from service.wire import framing
from service.worker.process.exit import NODE_GONE, ProcessExit
from service.worker.process.frame_writer import FrameWriter
from service.worker.process.log_forwarder import LogForwarder
from service.worker.process.redaction import redact
from service.worker.process.session_end import SessionEnd
from service.worker.process.stall_detector import StallDetector
from service.worker.process.watchdog import Watchdog
from zap.worker.v1 import frames_pb2

_STDERR = 2
_COMMAND_POLL_MS = 500
"""How often the command reader reports to the stall detector."""
_HEARTBEAT_INTERVAL_S = 1.0


class SessionHandler(Protocol):
    """A session, as its process sees it."""

    def start(self) -> None:
        """Connect, on other threads."""

    def execute(self, command: frames_pb2.Command, attachment: io.FileIO | None = None) -> None:
        """Execute a command of the node. Does not wait, because this thread also notices the node's death.

        `attachment`: the file that came with the command. It closes once it is dropped.
        """

    def find_stall(self) -> str:
        """Return a description of the session's stall, or an empty text. Called once a second; does not wait."""

    def each_second(self) -> None:
        """Do what is due each second, after the heartbeat. If this hangs, the process counts as stalled."""


SessionFactory = Callable[[frames_pb2.Start, FrameWriter, SessionEnd], SessionHandler]


class ProcessHost:
    """Owns what the sessions of this process share: socket, watchdog, heartbeat, log lines, exit."""

    def __init__(
        self,
        connection: socket.socket,
        watchdog: Watchdog,
        make_session: SessionFactory,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self._connection = connection
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self._watchdog = watchdog
        self._make_session = make_session
        self._sessions: dict[str, SessionHandler] = {}
        self._ending = threading.Lock()
        self._writer = FrameWriter(connection)
        self._exit = ProcessExit(self._writer, leave)
        self._log = LogForwarder(self._writer.offer)
        self._reader_stall = StallDetector("no command has been obeyed for some seconds")

    def run(self, start: frames_pb2.Start) -> None:
        """Run this session, and each that the node adds, until the process ends. Never return."""
        self._log.take_over_logging()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        self._add(start)
        try:
            while (received := self._next_command()) is not None:
                data, attachment = received
                self._execute(frames_pb2.Command.FromString(data), attachment)
                # Not until the next command comes, which may take hours.
                del received, attachment
            # The node is gone, and there is nothing to save.
            self._exit.leave(NODE_GONE)
        except Exception as error:  # noqa: BLE001 - every fault is reported to the node
            self._exit.end(Cause.CLIENT_ERROR, f"{type(error).__name__}: {error}")
        # Another thread ends this process within a bounded time.
        threading.Event().wait()

    # --- commands of the node

    def _next_command(self) -> tuple[bytes, io.FileIO | None] | None:
        self._reader_stall.progressed()
        while not self._readable.poll(_COMMAND_POLL_MS):
            self._reader_stall.progressed()
        try:
            return framing.receive_with_file(self._connection)
        except OSError:
            return None

    def _execute(self, command: frames_pb2.Command, attachment: io.FileIO | None) -> None:
        match command.WhichOneof("command"):
            case kind if command.session_id:
                if (session := self._sessions.get(command.session_id)) is not None:
                    session.execute(command, attachment)
                else:
                    # Its end may have crossed the command on the socket.
                    self._log.write("warning", "zap", f"Command for a session that is not here; ignored: {kind}")
            case "start":
                self._add(command.start)
            case "permit":
                # The watchdog ends all sessions. So with several, the node sends the earliest of their run permits.
                self._watchdog.permit(command.permit.deadline_ns)
            case "stop":
                for session in tuple(self._sessions.values()):
                    session.execute(command)
            case unknown:
                self._log.write("error", "zap", f"Unknown command from the node; ignored: {unknown}")

    # --- sessions

    def _add(self, start: frames_pb2.Start) -> None:
        end = SessionEnd(functools.partial(self._end_session, start.session_id))
        try:
            session = self._make_session(start, self._writer, end)
        except Exception as error:  # noqa: BLE001 - every fault is reported to the node, such as an unreadable certificate
            end.end(Cause.CLIENT_ERROR, f"{type(error).__name__}: {error}")
            return
        self._sessions[start.session_id] = session
        session.start()

    def _end_session(self, session_id: str, ended: frames_pb2.Ended) -> None:
        """Report the end of a session, and exit if it is the last."""
        ended.detail = redact(ended.detail)
        frame = frames_pb2.Frame(session_id=session_id, ended=ended)
        # One after another, because no report may come after the last one.
        with self._ending:
            if self._sessions.keys() <= {session_id}:
                self._exit.end_with(frame)
            else:
                self._writer.send(frame)
            self._sessions.pop(session_id, None)

    # --- heartbeat

    def _beat(self) -> None:
        while True:
            sessions = tuple(self._sessions.values())
            # A heartbeat that checked nothing would report progress while everything else is stuck. Check all parts at
            # each heartbeat, because they count the checks.
            stalls = [*(session.find_stall() for session in sessions), self._reader_stall.check()]
            if stall := next(filter(None, stalls), ""):
                # Exit on this thread: if that fails, the heartbeats stop and the node ends this process.
                faulthandler.dump_traceback(file=_STDERR, all_threads=True)
                self._exit.end(Cause.PROCESS_STALLED, stall)
            else:
                self._writer.offer(frames_pb2.Frame(progress=frames_pb2.Progress()))
            for session in sessions:
                session.each_second()
            time.sleep(_HEARTBEAT_INTERVAL_S)
