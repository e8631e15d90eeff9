"""Runs the zygote: a process that has imported all but the Go library, and forks session processes on request.

The node (`service.workers.zygote`) executes `python -m service.worker --socket FD --node PID [--liveness FD]`. It has
one thread and no gRPC, because neither survives a fork. Packets of its socket (`service.wire.framing`):

    node → zygote   fork(id) + the session's end of its socket
                    ping()
    zygote → node   ready(pid)
                    pong()
                    forked(id, pid) + pidfd of the child + file in memory that is the child's stderr
                    failed(id, words)
                    exited(pid, status)

The zygote dies with the node. Its children do not die with it: each ends when its socket to the node is closed.
"""

import argparse
import ctypes
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass, field

from service.wire import framing, liveness
from service.worker.library import loader

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Import the session process's modules, report that the zygote is ready, and fork until the node is gone."""
    parser = argparse.ArgumentParser(prog="service.worker")
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--node", type=int, required=True)
    parser.add_argument("--liveness", type=int)
    arguments = parser.parse_args()
    _die_with(arguments.node)
    # A terminal or a service manager sends these signals to all processes; only the node acts on them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=arguments.socket)
    os.set_inheritable(arguments.socket, False)  # noqa: FBT003
    if arguments.liveness is not None:
        liveness.inherit(arguments.liveness)
    loader.import_without_library()
    framing.send_packet(connection, framing.Packet("ready", {"pid": os.getpid()}))
    Zygote(connection, arguments.liveness).run()
    return 0


def _die_with(node: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != node:
        # The node died before prctl was called.
        sys.exit(0)


@dataclass
class Zygote:
    """Forks session processes on request, and reaps them."""

    connection: socket.socket
    liveness: int | None = None
    """The descriptor that this process and its children keep open (wire/liveness.py)."""
    children: dict[int, int] = field(default_factory=dict)
    """Process ids by pidfd."""

    def run(self) -> None:
        """Serve the node until it is gone; its children go on."""
        while True:
            readable = self._wait()
            for pidfd in readable & self.children.keys():
                self._reap(pidfd)
            if self.connection.fileno() in readable and not self._handle_packet():
                return

    def _wait(self) -> set[int]:
        # Use a new poll object rather than epoll, whose descriptor each child would have to close.
        poll = select.poll()
        for descriptor in (self.connection.fileno(), *self.children):
            poll.register(descriptor, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll()}

    def _handle_packet(self) -> bool:
        packet = framing.receive_packet(self.connection)
        if packet is None:
            return False
        match packet.kind:
            case "ping":
                framing.send_packet(self.connection, framing.Packet("pong", {}))
            case "fork" if packet.descriptors:
                self._fork(int(packet.values["id"]), packet.descriptors[0])
            case "fork":
                # The kernel drops descriptors that exceed this process's limit.
                self._refuse(int(packet.values["id"]), "the zygote has too many files open")
        return True

    def _refuse(self, request: int, words: str) -> None:
        framing.send_packet(self.connection, framing.Packet("failed", {"id": request, "words": words}))

    def _fork(self, request: int, session_socket: int) -> None:
        stderr = pid = pidfd = -1
        try:
            stderr = framing.limited_file()
            pid = os.fork()
            if pid == 0:
                _become_session_process(session_socket, stderr, self.liveness)
            pidfd = os.pidfd_open(pid)
        except (OSError, MemoryError) as error:
            _kill_child(pid)
            self._refuse(request, str(error) or type(error).__name__)
        else:
            self.children[pidfd] = pid
            forked = framing.Packet("forked", {"id": request, "pid": pid}, (pidfd, stderr))
            framing.send_packet(self.connection, forked)
        finally:
            os.close(session_socket)
            if stderr >= 0:
                os.close(stderr)

    def _reap(self, pidfd: int) -> None:
        pid = self.children.pop(pidfd)
        os.close(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        framing.send_packet(self.connection, framing.Packet("exited", {"pid": pid, "status": status}))


def _become_session_process(session_socket: int, stderr: int, liveness: int | None) -> None:
    from service.worker.process.main import become_session_process  # noqa: PLC0415 - the loader has imported it

    become_session_process(session_socket, stderr, liveness)


def _kill_child(pid: int) -> None:
    if pid > 0:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    sys.exit(main())
