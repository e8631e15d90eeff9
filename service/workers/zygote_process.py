"""Runs one zygote process: executes it, requests forks from it and receives the exit statuses of its children."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.domain.errors import Unavailable
from service.wire import framing
from service.workers.adopted_children import reap_adopted_children
from service.workers.exit_diagnostics import describe_exit, exit_report

_log = logging.getLogger(__name__)

SILENT_SECONDS = 2.0
"""Seconds without any packet after which a zygote counts as stuck. It answers requests one after another."""
_CHECK_INTERVAL_S = 0.5


class ZygoteDied(Exception):
    """The zygote has died. A child that it may have forked for the request exits by itself."""


@dataclass
class Child:
    """A forked process. Its descriptors belong to the caller, who must close them."""

    pid: int
    pidfd: int
    stderr: int
    """A memory file that is the child's stderr."""
    connection: socket.socket
    exit_status: asyncio.Future[int]
    """Set when the zygote has reaped the child; cancelled if the zygote dies before that."""

    def close(self) -> None:
        """Close the descriptors. A child whose socket is closed exits by itself."""
        self.connection.close()
        os.close(self.pidfd)
        os.close(self.stderr)


class ZygoteProcess:
    """A zygote that runs from its construction on, and can fork once `ready` returns."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], liveness: int | None = None) -> None:
        """Execute the zygote. It and its children keep `liveness`, the node's liveness descriptor, open.

        Raise Unavailable if it cannot be executed or watched.
        """
        self._loop = asyncio.get_running_loop()
        self._forks: dict[int, tuple[asyncio.Future[Child], socket.socket]] = {}
        """By request: the answer, and the node's end of the child's socket."""
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._last_request = 0
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._has_answered = False
        try:
            self._execute(command, environment, liveness)
        except OSError as error:
            raise Unavailable(f"the zygote cannot be executed: {error}", reason="POOL_UNAVAILABLE") from error
        self._loop.add_reader(self._connection, self._read)
        self._dead: asyncio.Future[None] = self._loop.create_future()
        self._reaping: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self.is_stopping = False

    @property
    def pid(self) -> int:
        """The process id of the zygote."""
        return self._process.pid

    @property
    def is_usable(self) -> bool:
        """Return whether the zygote accepts fork requests."""
        return self._reaping is None

    async def ready(self, timeout: float) -> None:
        """Wait until the zygote has imported everything. Raise ZygoteDied or TimeoutError."""
        async with asyncio.timeout(timeout):
            await asyncio.shield(self._ready)
        self._watching = self._loop.create_task(self._watch(), name="zygote-watch")

    async def wait_dead(self) -> None:
        """Wait until the zygote is dead and reaped."""
        await asyncio.shield(self._dead)

    async def fork(self) -> Child:
        """Fork a process that waits for its first command. Raise ZygoteDied or Unavailable."""
        try:
            node_end, child_end = framing.socket_pair()
        except OSError as error:
            message = f"no session process can be made now: {error}"
            raise Unavailable(message, reason="POOL_UNAVAILABLE") from error
        try:
            with child_end:
                return await self._request_fork(node_end, child_end)
        except BaseException:
            node_end.close()
            raise

    def terminate(self, reason: str = "") -> None:
        """Kill the zygote and release it. Its children keep their sockets and go on."""
        if self._reaping is not None:
            return
        if self._watching is not None:
            self._watching.cancel()
        self._loop.remove_reader(self._connection)
        self._connection.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        reason = reason or exit_report(self._stderr) or "it wrote nothing on stderr"
        died = ZygoteDied(reason)
        _set_error(self._ready, died)
        for answer, _ in self._forks.values():
            _set_error(answer, died)
        self._reaping = self._loop.create_task(self._reap(reason), name="zygote-reap")

    async def _reap(self, reason: str) -> None:
        # Without a thread: perhaps the zygote died because no thread can be started.
        dead = asyncio.Event()
        self._loop.add_reader(self._pidfd, dead.set)
        await dead.wait()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = self._process.wait()
        if not self.is_stopping:
            _log.warning("zygote %d %s; %s", self.pid, describe_exit(status), reason)
        os.close(self._stderr)
        # Not earlier: only now have its children another parent, perhaps this process.
        for exit_status in self._exits.values():
            exit_status.cancel()
        self._dead.set_result(None)
        await reap_adopted_children(self.pid)

    async def _watch(self) -> None:
        """Ping the zygote periodically, and terminate it if it does not answer.

        Silence is counted in checks, because a node that was suspended itself has read nothing meanwhile.
        """
        silent = 0.0
        while silent < SILENT_SECONDS:
            if silent == 0.0:
                with contextlib.suppress(OSError):  # it is dead, which _read notices, or owes many answers
                    framing.send_packet(self._connection, framing.Packet("ping", {}))
            self._has_answered = False
            await asyncio.sleep(_CHECK_INTERVAL_S)
            silent = 0.0 if self._has_answered else silent + _CHECK_INTERVAL_S
        self._watching = None
        self.terminate(f"it did not answer for {SILENT_SECONDS:g} seconds")

    def _execute(self, command: Sequence[str], environment: Mapping[str, str], liveness: int | None) -> None:
        """Execute the zygote, not in a thread: its parent-death signal is bound to the thread that forks it."""
        with contextlib.ExitStack() as undo:
            self._stderr = os.memfd_create("zygote-stderr", os.MFD_CLOEXEC)
            undo.callback(os.close, self._stderr)
            self._connection, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._connection.close)
            self._connection.setblocking(False)  # noqa: FBT003
            kept = [] if liveness is None else [liveness]
            with child_end:
                self._process = subprocess.Popen(
                    [
                        *(*command, "--socket", str(child_end.fileno()), "--node", str(os.getpid())),
                        *(f"--liveness={descriptor}" for descriptor in kept),
                    ],
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    pass_fds=[child_end.fileno(), *kept],
                    start_new_session=True,
                )
            undo.callback(self._process.wait)
            undo.callback(self._process.kill)
            self._pidfd = os.pidfd_open(self._process.pid)
            undo.pop_all()

    async def _request_fork(self, node_end: socket.socket, child_end: socket.socket) -> Child:
        if not self.is_usable:
            raise ZygoteDied("it has ended")
        self._last_request += 1
        request = self._last_request
        answer: asyncio.Future[Child] = self._loop.create_future()
        self._forks[request] = answer, node_end
        try:
            await self._send(framing.Packet("fork", {"id": request}, (child_end.fileno(),)))
            # With this copy open, the child's death would not close the connection.
            child_end.close()
            return await answer
        except BaseException:
            _close_unclaimed(answer)
            raise
        finally:
            # A child that is forked later is closed by _resolve_fork.
            del self._forks[request]

    async def _send(self, packet: framing.Packet) -> None:
        while True:
            try:
                framing.send_packet(self._connection, packet)
                return
            except BlockingIOError:
                await asyncio.sleep(0.005)  # thousands of requests are under way; it is busy forking
            except OSError as error:
                # The zygote reads no more. Terminate it now, or the caller would spend all its attempts on it before
                # its death is noticed. Read what it sent before.
                self._read()
                self.terminate()
                raise ZygoteDied(str(error)) from error

    def _read(self) -> None:
        try:
            while (packet := framing.receive_packet(self._connection)) is not None:
                self._handle_packet(packet)
        except BlockingIOError:
            return
        except OSError:
            pass  # reset by a zygote that left something unread; its packets were read before
        except (ValueError, KeyError) as error:
            _log.error("a packet of the zygote is invalid; the zygote is killed: %s", error)
        self.terminate()

    def _handle_packet(self, packet: framing.Packet) -> None:
        self._has_answered = True
        match packet.kind:
            case "ready" if not self._ready.done():
                self._ready.set_result(None)
            case "exited":
                exit_status = self._exits.pop(packet.values["pid"], None)
                if exit_status is not None and not exit_status.done():
                    exit_status.set_result(packet.values["status"])
            case "forked" if len(packet.descriptors) == 2:
                self._resolve_fork(packet)
            case "forked":
                # The kernel drops descriptors above this process's limit. The child finds its socket closed and exits.
                for descriptor in packet.descriptors:
                    os.close(descriptor)
                self._fail_fork(packet.values["id"], "this node has too many files open")
            case "failed":
                self._fail_fork(packet.values["id"], packet.values["words"])

    def _fail_fork(self, request: int, detail: str) -> None:
        answer, _ = self._forks.get(request, (None, None))
        if answer is not None and not answer.done():
            message = f"no session process can be made now: {detail}"
            answer.set_exception(Unavailable(message, reason="POOL_UNAVAILABLE"))

    def _resolve_fork(self, packet: framing.Packet) -> None:
        pid, (pidfd, stderr) = packet.values["pid"], packet.descriptors
        exit_status = self._exits[pid] = self._loop.create_future()
        answer, node_end = self._forks.get(packet.values["id"], (None, None))
        if answer is None or node_end is None or answer.done():
            os.close(pidfd)
            os.close(stderr)
        else:
            answer.set_result(Child(pid, pidfd, stderr, node_end, exit_status))


def _set_error(waiting: asyncio.Future[Any], error: Exception) -> None:
    if not waiting.done():
        waiting.set_exception(error)
        waiting.exception()  # mark as retrieved: a caller may have stopped waiting


def _close_unclaimed(answer: "asyncio.Future[Child]") -> None:
    """Close a child that arrived as its caller was cancelled."""
    if answer.done() and not answer.cancelled() and answer.exception() is None:
        answer.result().close()
