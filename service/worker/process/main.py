"""Turns a forked child of the zygote into a session process: the one place that knows the process and its sessions."""

import contextlib
import ctypes
import faulthandler
import os
import signal
import socket
import traceback
from pathlib import Path

from service.domain.disconnect_policy import Cause
from service.wire import framing
from service.worker.process.exit import NODE_GONE, ProcessExit
from service.worker.process.frame_writer import FrameWriter
from service.worker.process.host import ProcessHost
from service.worker.process.watchdog import NotPermitted, Watchdog, limit_the_wait
from service.worker.session.session import ClientSession
from zap.worker.v1 import frames_pb2

_STDERR = 2
_PR_SET_NAME = 15
_NAME_LENGTH = 15


def become_session_process(connection: int, stderr: int, liveness: int | None) -> None:
    """Run a session in this child of the zygote with the given descriptors. Never return."""
    try:
        _leave_the_zygote(connection, stderr, liveness)
        _serve(socket.socket(fileno=connection))
    except BaseException:  # noqa: BLE001 - there is no caller to raise it to; the node reads it from stderr
        traceback.print_exc()
    finally:
        # A child must never return into the zygote's code.
        os._exit(1)


def _leave_the_zygote(connection: int, stderr: int, liveness: int | None) -> None:
    # SIGINT, SIGTERM and SIGHUP stay ignored, as in the zygote. A service manager sends them to all processes; the node
    # acts on them and stops its session processes gracefully.
    for number in (signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    limit_the_wait()
    nothing = os.open(os.devnull, os.O_RDWR)
    # Go prints to stdout and panics to stderr. Neither may block on a reader or reach the node's log unredacted. stderr
    # is a size-limited file in memory, which the node reads once this process is dead.
    for target, source in ((0, nothing), (1, nothing), (_STDERR, stderr)):
        os.dup2(source, target)
    # Close every other descriptor: if a sibling's socket stayed open here, that sibling would not notice its node's
    # death. The liveness socket stays open until this process dies, so that no other node claims its session earlier.
    kept = {0, 1, _STDERR, connection, liveness}
    for descriptor in {int(entry.name) for entry in Path("/proc/self/fd").iterdir()} - kept:
        with contextlib.suppress(OSError):  # the listing's descriptor is closed already
            os.close(descriptor)
    # Enable the fault handler first: it sets up the alternate stack, which SIGUSR1 needs on one of Go's threads.
    faulthandler.enable(file=_STDERR, all_threads=False)
    faulthandler.register(signal.SIGUSR1, file=_STDERR, all_threads=True)


def _serve(connection: socket.socket) -> None:
    start = _await_start(connection)
    # Only after Start: the node finds and reaps a child that it does not know yet by the zygote's process group.
    os.setsid()
    watchdog = Watchdog(_STDERR)
    try:
        watchdog.arm(start.permit.deadline_ns)
    except NotPermitted as error:
        ProcessExit(FrameWriter(connection)).end(Cause.PROCESS_DIED, str(error))
    _name_process(start)
    ProcessHost(connection, watchdog, ClientSession).run(start)


def _await_start(connection: socket.socket) -> frames_pb2.Start:
    data = framing.receive(connection)
    if data is None:
        os._exit(NODE_GONE)
    command = frames_pb2.Command.FromString(data)
    if command.WhichOneof("command") != "start":
        raise framing.ProtocolError("the first command was not to start")
    return command.start


def _name_process(start: frames_pb2.Start) -> None:
    """Show the process's first session in ps and top, by the name of the thread and the command line."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NAME, start.session_id[:_NAME_LENGTH].encode(), 0, 0, 0)
    length = len(Path("/proc/self/cmdline").read_bytes())
    title = f"zap-session {start.session_id} epoch {start.epoch}".encode()[: length - 1]
    # The arguments of a process lie one after another in memory, from its first one on.
    first = ctypes.c_void_p.in_dll(libc, "program_invocation_name").value
    if first and length:
        ctypes.memmove(first, title.ljust(length, b"\0"), length)
