"""Starts a node in a third of the time: forks it from a process that has imported the service already.

Half of the processor time of a node's start is imports. The forked process then executes `python -m service serve` from
its first line, with an environment and an output of its own; it has no other file open. It has forked its first zygote
before that, with the zygote's imports done too; a zygote that replaces it is executed. What a start itself does wrong
(an import before the zygote's, a setting) shows only without this, so tests/e2e/test_start.py and whatever runs outside
of pytest execute their nodes.
"""

import asyncio
import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[1]
PYTHON_PATH = f"{ROOT}{os.pathsep}{ROOT / 'generated'}"
_EXIT_CODE = struct.Struct("!i")
_PID = struct.Struct("!i")
_LENGTH = struct.Struct("!I")
_ROOM_BYTES = 8192
"""Bytes by which the template's environment, in which a forked zygote shows its own, is larger than the tests'."""


class ForkedNode:
    """What asyncio.subprocess.Process is for an executed node."""

    def __init__(self, pid: int, pidfd: int, connection: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._connection = connection
        self._ending = asyncio.create_task(self._wait_ended())

    async def wait(self) -> int:
        """Until it has ended; its exit code."""
        return await asyncio.shield(self._ending)

    async def _wait_ended(self) -> int:
        try:
            answer = await asyncio.get_running_loop().sock_recv(self._connection, _EXIT_CODE.size)
            if not answer:
                raise RuntimeError(f"the template of node {self.pid} is gone")
            self.returncode = int(_EXIT_CODE.unpack(answer)[0])
            return self.returncode
        finally:
            self._connection.close()
            os.close(self._pidfd)

    def send_signal(self, number: int) -> None:
        """Raise ProcessLookupError if it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


class NodeTemplate:
    """`with NodeTemplate() as template:` has a process that forks nodes."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "tests.node_template", str(theirs.fileno())),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": PYTHON_PATH, "MALLOC_ARENA_MAX": "2", "ROOM": " " * _ROOM_BYTES},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ours.close()
        self._process.wait(10)

    def start(self, environment: Mapping[str, str], output: int) -> ForkedNode:
        """Fork a node with this environment, that prints to this descriptor."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._ours, [b"fork"], [theirs.fileno(), output])
        request = json.dumps(dict(environment)).encode()
        ours.sendall(_LENGTH.pack(len(request)) + request)
        answer, (pidfd,), _, _ = socket.recv_fds(ours, _PID.size, 1)
        ours.setblocking(False)
        return ForkedNode(_PID.unpack(answer)[0], pidfd, ours)


def fork_nodes(requests: socket.socket) -> None:
    """Fork on request until the tests are gone. Return in a child, which has what a node has at its first line."""
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        poll = select.poll()
        for descriptor in (requests.fileno(), *running):
            poll.register(descriptor, select.POLLIN)
        readable = [descriptor for descriptor, _ in poll.poll()]
        for pidfd in running.keys() & readable:
            pid, connection = running.pop(pidfd)
            os.close(pidfd)
            with connection:
                _report(connection, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        if requests.fileno() not in readable:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, 16, 2)
        if not message:
            sys.exit(0)
        connection, output = socket.socket(fileno=descriptors[0]), descriptors[1]
        (length,) = _LENGTH.unpack(connection.recv(_LENGTH.size, socket.MSG_WAITALL))
        environment = json.loads(connection.recv(length, socket.MSG_WAITALL))
        pid = os.fork()
        if pid == 0:
            _become_node(environment, output)
            return
        os.close(output)
        pidfd = os.pidfd_open(pid)
        running[pidfd] = (pid, connection)
        socket.send_fds(connection, [_PID.pack(pid)], [pidfd])


def _report(connection: socket.socket, code: int) -> None:
    try:
        connection.sendall(_EXIT_CODE.pack(code))
    except OSError:
        return  # its test has ended


def _become_node(environment: Mapping[str, str], output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(ROOT / "service/__main__.py"), "serve"]


def main() -> int:
    """Import the service, and be the template; in a child, be a node or its zygote."""
    # Tests import this module, and not the service.
    from service.__main__ import main as be_service  # noqa: PLC0415
    from service.node import wiring  # noqa: F401, PLC0415
    from service.worker.__main__ import main as be_zygote  # noqa: PLC0415
    from tests import zygote_template  # noqa: PLC0415

    zygote_template.import_modules()
    gc.freeze()
    fork_nodes(socket.socket(fileno=int(sys.argv[1])))
    if zygote_template.fork_zygote():
        return be_zygote()
    return be_service(["serve"])


if __name__ == "__main__":
    sys.exit(main())
