"""Forks a node's zygote with its imports done, in place of the first that the node executes.

A zygote must be a child of its node, and a fork must come before gRPC has threads. So the node forks it at its own
first line; it waits for what the node would execute it with: arguments, environment and descriptors, under the same
numbers.
"""

import ctypes
import fcntl
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path

_READ_BY_GO = ("HTTPS_PROXY", "SSL_CERT_FILE")
"""Variables that Go reads. It sees the environment with which its process was executed, and no later change."""
_AT_EXEC = dict(os.environ)
_LENGTH = struct.Struct("!I")
_MOST_DESCRIPTORS = 8
_ABOVE = 200
"""Descriptors are received above this number, so that none is in the way of the numbers that they are given."""


def import_modules() -> None:
    """Import what a zygote imports, and leave no trace of it that a node would see."""
    from service.worker.library import loader  # noqa: PLC0415 - it reads the environment

    before = dict(sys.modules)
    os.environ["SPHINX"] = "1"
    loader.stub_unused_modules()
    with loader.no_threads():
        importlib.import_module("neonize.client")
        importlib.import_module("service.worker.process.main")
    # The loader puts its stubs in again when the zygote runs.
    for name, module in list(sys.modules.items()):
        if isinstance(module, loader._Stub):
            del sys.modules[name]
            sys.modules.update({name: before[name]} if name in before else {})


def fork_zygote() -> bool:
    """Fork the zygote; return whether this is it, with all that it is executed with."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _receive(theirs)
        return True
    theirs.close()
    _ForkedZygote.waiting = (pid, ours)
    replaced = types.SimpleNamespace(**{**vars(subprocess), "Popen": _execute})
    importlib.import_module("service.workers.zygote_process").subprocess = replaced  # type: ignore[attr-defined]
    return False


class _ForkedZygote:
    """What subprocess.Popen is for an executed zygote."""

    waiting: tuple[int, socket.socket] | None = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it was waited for."""
        if self._status is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Wait until it has ended; return its exit code, or minus the signal."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


def _execute(
    command: Sequence[str], *, env: Mapping[str, str], stderr: int, pass_fds: Sequence[int], **other: object
) -> "_ForkedZygote | subprocess.Popen[bytes]":
    """Have the forked zygote run this command. Execute it if none is left, or if Go would see another environment."""
    (pid, connection), _ForkedZygote.waiting = _ForkedZygote.waiting or (0, None), None
    if connection is None or any(env.get(name) != _AT_EXEC.get(name) for name in _READ_BY_GO):
        if connection is not None:
            connection.close()
            os.waitpid(pid, 0)
        return subprocess.Popen(command, env=env, stderr=stderr, pass_fds=pass_fds, **other)  # type: ignore[call-overload,no-any-return]
    numbers = [2, *pass_fds]
    request = json.dumps({"arguments": command[2:], "environment": dict(env), "numbers": numbers}).encode()
    with connection:
        socket.send_fds(connection, [_LENGTH.pack(len(request))], [stderr, *pass_fds])
        connection.sendall(request)
    return _ForkedZygote(pid)


def _receive(connection: socket.socket) -> None:
    """Wait for the node's request, and become what it would execute. Exit if the node ends."""
    header, received, _, _ = socket.recv_fds(connection, _LENGTH.size, _MOST_DESCRIPTORS)
    if not header:
        os._exit(0)
    request = json.loads(connection.recv(_LENGTH.unpack(header)[0], socket.MSG_WAITALL))
    connection.close()
    os.setsid()
    low = [os.open(os.devnull, os.O_RDWR), os.open(os.devnull, os.O_RDWR), *received]
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for descriptor in low]
    for descriptor in low:
        os.close(descriptor)
    for descriptor, number in zip(high, [0, 1, *request["numbers"]], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    _show_environment(request["environment"])
    sys.argv = request["arguments"]


def _show_environment(environment: Mapping[str, str]) -> None:
    """Show this environment in /proc, where tests look for a session process of a certain node."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])  # env_start and env_end of proc(5)
    text = "".join(f"{name}={value}\0" for name, value in sorted(environment.items(), reverse=True))
    ctypes.memmove(start, text.encode()[: end - start - 1].ljust(end - start, b"\0"), end - start)
