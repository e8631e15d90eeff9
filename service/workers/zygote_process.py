"""One zygote, as long as it lives: executed, asked to fork, heard out about the deaths of its children."""

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
"""How long a zygote that is asked may say nothing. It answers one after another: a hundred forks may take longer."""
_LOOK_SECONDS = 0.5


class ZygoteDied(Exception):
    """The zygote is gone; what was asked of it may have been done, and its result ends by itself."""


@dataclass
class Child:
    """A process that was forked. The descriptors belong to whoever has it."""

    pid: int
    pidfd: int
    stderr: int
    """A file in memory: what it wrote there."""
    connection: socket.socket
    exit_status: asyncio.Future[int]
    """Set when the zygote has reaped it; cancelled once the zygote is dead, if it died before that."""

    def close(self) -> None:
        """Let go of it. A child whose socket is closed ends by itself."""
        self.connection.close()
        os.close(self.pidfd)
        os.close(self.stderr)


class ZygoteProcess:
    """Constructed running; `ready` then tells when it can be asked."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], liveness: int | None = None) -> None:
        """Execute it. `liveness`: descriptor of the node's liveness socket, which it and its children keep open.

        Raises Unavailable if it cannot be executed, or not be watched.
        """
        self._loop = asyncio.get_running_loop()
        self._forks: dict[int, tuple[asyncio.Future[Child], socket.socket]] = {}
        """What was asked for: the answer, and the node's end of the child's socket."""
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._last_request = 0
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._was_heard = False
        try:
            self._execute(command, environment, liveness)
        except OSError as error:
            raise Unavailable(f"the zygote cannot be executed: {error}", reason="POOL_UNAVAILABLE") from error
        self._loop.add_reader(self._connection, self._read)
        self._grave: asyncio.Future[None] = self._loop.create_future()
        self._reaping: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self.is_asked_to_end = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_usable(self) -> bool:
        """Whether it can be asked to fork."""
        return self._reaping is None

    async def ready(self, timeout: float) -> None:
        """Wait until it has imported everything. Raises ZygoteDied, TimeoutError."""
        async with asyncio.timeout(timeout):
            await asyncio.shield(self._ready)
        self._watching = self._loop.create_task(self._watch(), name="zygote-watch")

    async def wait_dead(self) -> None:
        """Wait until it is dead and reaped, however that comes about."""
        await asyncio.shield(self._grave)

    async def fork(self) -> Child:
        """A new process that waits for its first command. Raises ZygoteDied, Unavailable."""
        try:
            ours, theirs = framing.socket_pair()
        except OSError as error:
            words = f"no session process can be made now: {error}"
            raise Unavailable(words, reason="POOL_UNAVAILABLE") from error
        try:
            with theirs:
                return await self._ask(ours, theirs)
        except BaseException:
            ours.close()
            raise

    def terminate(self, why: str = "") -> None:
        """Make sure that it is dead and let go of it. Its children's sockets are not touched: they go on."""
        if self._reaping is not None:
            return
        if self._watching is not None:
            self._watching.cancel()
        self._loop.remove_reader(self._connection)
        self._connection.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        words = why or exit_report(self._stderr) or "it left no words"
        died = ZygoteDied(words)
        _fail(self._ready, died)
        for answer, _ in self._forks.values():
            _fail(answer, died)
        self._reaping = self._loop.create_task(self._reap(words), name="zygote-reap")

    async def _reap(self, words: str) -> None:
        # By no thread: there may be none to be had, nor a zygote for that reason.
        dead = asyncio.Event()
        self._loop.add_reader(self._pidfd, dead.set)
        await dead.wait()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = self._process.wait()
        if not self.is_asked_to_end:
            _log.warning("zygote %d %s; %s", self.pid, describe_exit(status), words)
        os.close(self._stderr)
        # Not earlier: its children are somebody else's only now, perhaps ours.
        for exit_status in self._exits.values():
            exit_status.cancel()
        self._grave.set_result(None)
        await reap_adopted_children(self.pid)

    async def _watch(self) -> None:
        """Ask whether it is there, time and again, and bury it if it says nothing.

        Counted in looks: a node that was held up itself has not listened. What it was asked before it is heard first.
        """
        silent = 0.0
        while silent < SILENT_SECONDS:
            if silent == 0.0:
                with contextlib.suppress(OSError):  # it is gone, which is seen elsewhere, or owes many answers already
                    framing.send_packet(self._connection, framing.Packet("ping", {}))
            self._was_heard = False
            await asyncio.sleep(_LOOK_SECONDS)
            silent = 0.0 if self._was_heard else silent + _LOOK_SECONDS
        self._watching = None
        self.terminate(f"it did not answer for {SILENT_SECONDS:g} seconds")

    def _execute(self, command: Sequence[str], environment: Mapping[str, str], liveness: int | None) -> None:
        """Not in a thread: the zygote asks to die with its parent, and to the kernel that is the thread."""
        with contextlib.ExitStack() as undo:
            self._stderr = os.memfd_create("zygote-stderr", os.MFD_CLOEXEC)
            undo.callback(os.close, self._stderr)
            self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._connection.close)
            self._connection.setblocking(False)  # noqa: FBT003
            kept = [] if liveness is None else [liveness]
            with theirs:
                self._process = subprocess.Popen(
                    [
                        *(*command, "--socket", str(theirs.fileno()), "--node", str(os.getpid())),
                        *(f"--liveness={descriptor}" for descriptor in kept),
                    ],
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    pass_fds=[theirs.fileno(), *kept],
                    start_new_session=True,
                )
            undo.callback(self._process.wait)
            undo.callback(self._process.kill)
            self._pidfd = os.pidfd_open(self._process.pid)
            undo.pop_all()

    async def _ask(self, ours: socket.socket, theirs: socket.socket) -> Child:
        if not self.is_usable:
            raise ZygoteDied("it is gone")
        self._last_request += 1
        request = self._last_request
        answer: asyncio.Future[Child] = self._loop.create_future()
        self._forks[request] = answer, ours
        try:
            await self._send(framing.Packet("fork", {"id": request}, (theirs.fileno(),)))
            # Our copy of the child's end: with it open, the child's death would not close the connection.
            theirs.close()
            return await answer
        except BaseException:
            _discard(answer)
            raise
        finally:
            # What comes later finds nobody waiting, and is closed.
            del self._forks[request]

    async def _send(self, packet: framing.Packet) -> None:
        while True:
            try:
                framing.send_packet(self._connection, packet)
                return
            except BlockingIOError:
                await asyncio.sleep(0.005)  # thousands of requests are under way; it is busy forking
            except OSError as error:
                # It hears nothing any more. Whoever asks next must find that out before its death is told, or all tries
                # would be made within that moment. What it has said is heard first.
                self._read()
                self.terminate()
                raise ZygoteDied(str(error)) from error

    def _read(self) -> None:
        try:
            while (packet := framing.receive_packet(self._connection)) is not None:
                self._take(packet)
        except BlockingIOError:
            return
        except OSError:
            pass  # its end, with something unread: what it said before was heard
        except (ValueError, KeyError) as error:
            _log.error("what the zygote says cannot be understood: %s", error)
        self.terminate()

    def _take(self, packet: framing.Packet) -> None:
        self._was_heard = True
        match packet.kind:
            case "ready" if not self._ready.done():
                self._ready.set_result(None)
            case "exited":
                exit_status = self._exits.pop(packet.values["pid"], None)
                if exit_status is not None and not exit_status.done():
                    exit_status.set_result(packet.values["status"])
            case "forked" if len(packet.descriptors) == 2:
                self._take_forked(packet)
            case "forked":
                # The kernel keeps back what there is no room for here. What was forked finds its socket closed.
                for descriptor in packet.descriptors:
                    os.close(descriptor)
                self._refuse(packet.values["id"], "this node has too many files open")
            case "failed":
                self._refuse(packet.values["id"], packet.values["words"])

    def _refuse(self, request: int, words: str) -> None:
        answer, _ = self._forks.get(request, (None, None))
        if answer is not None and not answer.done():
            words = f"no session process can be made now: {words}"
            answer.set_exception(Unavailable(words, reason="POOL_UNAVAILABLE"))

    def _take_forked(self, packet: framing.Packet) -> None:
        pid, (pidfd, stderr) = packet.values["pid"], packet.descriptors
        exit_status = self._exits[pid] = self._loop.create_future()
        answer, ours = self._forks.get(packet.values["id"], (None, None))
        if answer is None or ours is None or answer.done():
            os.close(pidfd)
            os.close(stderr)
        else:
            answer.set_result(Child(pid, pidfd, stderr, ours, exit_status))


def _fail(waiting: asyncio.Future[Any], error: Exception) -> None:
    if not waiting.done():
        waiting.set_exception(error)
        waiting.exception()  # seen: whoever has stopped waiting must not turn it into a complaint


def _discard(answer: "asyncio.Future[Child]") -> None:
    """Close what came in the very moment in which whoever waited for it gave up."""
    if answer.done() and not answer.cancelled() and answer.exception() is None:
        answer.result().close()
