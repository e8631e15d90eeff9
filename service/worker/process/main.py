"""A session process, from its fork to the session that it is."""

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
from service.worker.process.watchdog import NotPermitted, Watchdog, limit_the_wait
from service.worker.session.session import Session, reset_logging
from zap.worker.v1 import frames_pb2

_STDERR = 2
_PR_SET_NAME = 15
_NAME_LENGTH = 15


def become_session_process(connection: int, stderr: int, liveness: int | None) -> None:
    """What a child of the zygote does, with its descriptors, instead of returning. Does not return."""
    try:
        _leave_the_zygote(connection, stderr, liveness)
        _serve(socket.socket(fileno=connection))
    except BaseException:  # noqa: BLE001 - written down where the node finds it; there is nobody to raise it to
        traceback.print_exc()
    finally:
        # Whatever happened, a child must not come back into the zygote's code.
        os._exit(1)


def _leave_the_zygote(connection: int, stderr: int, liveness: int | None) -> None:
    # SIGINT, SIGTERM and SIGHUP stay ignored, as in the zygote: who sends them to all processes of a service means the
    # node, which has its sessions leave gently.
    for number in (signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    limit_the_wait()
    nothing = os.open(os.devnull, os.O_RDWR)
    # Go prints on stdout, and a panic goes to stderr: neither may wait for a reader, neither may reach the node's log
    # unread. stderr is a file in memory, of limited size, that the node reads once this process is dead.
    for target, source in ((0, nothing), (1, nothing), (_STDERR, stderr)):
        os.dup2(source, target)
    # Every descriptor but the own socket: with a sibling's end open, that sibling would never see its node go. The
    # liveness socket stays open until this process is dead, or another node would take its session too early.
    kept = {0, 1, _STDERR, connection, liveness}
    for descriptor in {int(entry.name) for entry in Path("/proc/self/fd").iterdir()} - kept:
        with contextlib.suppress(OSError):  # the listing's own
            os.close(descriptor)
    # For the first fault signal that hits C code; alternate stack first, since SIGUSR1 may arrive on a thread of Go's.
    faulthandler.enable(file=_STDERR, all_threads=False)
    faulthandler.register(signal.SIGUSR1, file=_STDERR, all_threads=True)


def _serve(connection: socket.socket) -> None:
    start = _await_start(connection)
    # Not before: one whose node never got to know of it stays in the zygote's group, where the node finds and reaps it.
    os.setsid()
    watchdog = Watchdog(_STDERR)
    try:
        watchdog.arm(start.permit.deadline_ns)
    except NotPermitted as error:
        ProcessExit(FrameWriter(connection)).end(Cause.PROCESS_DIED, str(error))
    _name_process(start)
    reset_logging()
    try:
        session = Session(connection, start, watchdog)
    except Exception as error:  # the node is told, whatever it is: a certificate that cannot be read, for one
        ProcessExit(FrameWriter(connection)).end(Cause.CLIENT_ERROR, f"{type(error).__name__}: {error}")
        raise
    session.run()


def _await_start(connection: socket.socket) -> frames_pb2.Start:
    data = framing.receive(connection)
    if data is None:
        os._exit(NODE_GONE)
    command = frames_pb2.Command.FromString(data)
    if command.WhichOneof("command") != "start":
        raise framing.ProtocolError("the first command was not to start")
    return command.start


def _name_process(start: frames_pb2.Start) -> None:
    """Have ps and top show which session this is: the name of the thread, and the command line."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NAME, start.session_id[:_NAME_LENGTH].encode(), 0, 0, 0)
    room = len(Path("/proc/self/cmdline").read_bytes())
    title = f"zap-session {start.session_id} epoch {start.epoch}".encode()[: room - 1]
    # The arguments of a process are where its first one begins, one behind the other.
    first = ctypes.c_void_p.in_dll(libc, "program_invocation_name").value
    if first and room:
        ctypes.memmove(first, title.ljust(room, b"\0"), room)
