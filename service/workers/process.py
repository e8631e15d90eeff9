"""Controls one session process, whatever sessions it runs: its socket, its run permit, its progress and its death."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from service.domain.disconnect_policy import Cause
from service.domain.masking import cut
from service.domain.observations import Ended
from service.wire import framing
from service.workers.channel import WorkerChannel
from service.workers.decode import decode_end
from service.workers.exit_diagnostics import describe_state, empty_if_half_full, stderr_excerpt
from service.workers.exit_watcher import ExitWatcher
from service.workers.zygote_process import Child
from zap.worker.v1 import frames_pb2

_log = logging.getLogger(__name__)

#: Seconds of silence after which a process has stalled. A healthy one reports progress each second.
STALLED_SECONDS = 4.0
KILLED = "killed"
"""The detail of the end of a process that was killed without being asked to stop."""
_EXIT_TIMEOUT_S = 2.0
_LAST_FRAME_TIMEOUT_S = 1.0
#: Silence is counted in checks, because a node that was suspended itself has read nothing meanwhile.
_CHECK_INTERVAL_S = 0.25
_NANOSECONDS = 1_000_000_000

_STDERR_CAUSES = frozenset({Cause.PROCESS_DIED, Cause.PROCESS_STALLED, Cause.CONNECT_STALLED})
"""Ends that stderr explains: by an error, or by the stacks of all threads."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_session_log = logging.getLogger("service.session")


class FrameReceiver(Protocol):
    """A session, as its process sees it."""

    reported_end: Ended | None
    """The end that its side in the process has reported, if it has."""

    def on_frame(self, frame: frames_pb2.Frame, size: int) -> None:
        """Take a frame of the session, which has `size` bytes."""

    def on_process_end(self, ended: Ended) -> None:
        """Take the end of the session, because the process is dead."""


class Process:
    """One session process, and the way from its frames to its sessions."""

    def __init__(self, child: Child, log_fields: Mapping[str, object]) -> None:
        """`log_fields` name in each log line what the process is for."""
        self.pid = child.pid
        self._child = child
        self._log_fields = log_fields
        self._log = logging.LoggerAdapter(_log, {**log_fields, "pid": child.pid})
        self._sessions: dict[str, FrameReceiver] = {}
        self._exit = ExitWatcher(child, self._log)
        self.channel = WorkerChannel(child.connection, self._on_frame, self._log)
        self._permitted_until = 0.0
        self._reported_end: Ended | None = None
        self._stop_reason = ""
        self._stalled = False
        self._showed_life = False
        self._exit_failure = ""
        self._lifecycle: asyncio.Task[None] | None = None

    async def begin(self, session: FrameReceiver, start: frames_pb2.Start) -> None:
        """Have the process run its first session. Called once, before anything else."""
        # Before anything is awaited: the process may die meanwhile, and its end is reported to its sessions.
        self._sessions[start.session_id] = session
        self._permitted_until = start.permit.deadline_ns / _NANOSECONDS
        self._lifecycle = asyncio.create_task(self._run(), name=f"session-process-{self.pid}")
        await self.channel.open()
        self.add(session, start)

    # --- for its sessions

    def add(self, session: FrameReceiver, start: frames_pb2.Start) -> None:
        """Have the process run a session beside its others, without a change of its run permit."""
        self._sessions[start.session_id] = session
        self.channel.send(frames_pb2.Command(start=start))

    def permit(self, until: float) -> None:
        """Extend the run permit of the process to this time of time.monotonic()."""
        if until > self._permitted_until:
            self._permitted_until = until
            permit = frames_pb2.Permit(deadline_ns=int(until * _NANOSECONDS))
            self.channel.send_latest(frames_pb2.Command(permit=permit))

    @property
    def accepts_commands(self) -> bool:
        """Return whether a command would reach the process now."""
        return self.channel.accepts_commands and self._reported_end is None

    async def stop(self, grace: float) -> None:
        """Have it disconnect, finish the current event and exit; kill it after `grace` seconds.

        It gets no SIGTERM: session processes ignore it, because service managers send it to all processes.
        """
        self._stop_reason = self._stop_reason or "asked to stop"
        self.channel.send(frames_pb2.Command(stop=frames_pb2.Stop()))
        try:
            async with asyncio.timeout(grace):
                await self._exit.wait()
        except TimeoutError:
            self._stop_reason = f"asked to stop, and killed after {grace:g} seconds"
            self._log.warning("the session's process did not stop within %g s", grace)
            await self._exit.kill()

    async def kill(self) -> None:
        """Kill it and return when it is dead."""
        self._stop_reason = self._stop_reason or KILLED
        await self._exit.kill()

    # --- for the pool

    @property
    def session_ids(self) -> tuple[str, ...]:
        """The sessions that it was started for."""
        return tuple(self._sessions)

    @property
    def overdue(self) -> float:
        """Seconds since it was killed without its death being confirmed."""
        return self._exit.overdue

    async def wait_closed(self) -> None:
        """Wait until it is dead and its descriptors are closed, even if its observations are not read."""
        if self._lifecycle is not None:
            await asyncio.shield(self._lifecycle)

    # --- frames

    def _on_frame(self, frame: frames_pb2.Frame, size: int) -> None:
        kind = frame.WhichOneof("body")
        if kind not in {"log_line", "reply", "ended"}:
            # Other frames delay the progress frame in the socket, so they count as progress.
            self._showed_life = True
        if frame.session_id in self._sessions:
            self._sessions[frame.session_id].on_frame(frame, size)
        elif frame.session_id:
            # A session stays known until the process is dead, so this is no frame that came late.
            raise framing.ProtocolError(f"a frame of a session that is not in this process: {cut(frame.session_id)!r}")
        elif kind == "progress":
            self._empty_stderr()
        elif kind == "log_line":
            forward_log_line(frame.log_line, self._log_fields)
        elif kind == "ended":
            self._reported_end = self._reported_end or decode_end(frame.ended)

    def _empty_stderr(self) -> None:
        """Log and empty stderr if it is half full, so that a final error has room."""
        if text := empty_if_half_full(self._child.stderr):
            self._log.warning("the session's process wrote on stderr:\n%s", text)

    # --- lifecycle

    async def _run(self) -> None:
        """Watch it until it is dead, then log its end and report it to its sessions."""
        watching = asyncio.create_task(self._watch_progress(), name=f"watch-{self.pid}")
        await self._exit.wait()
        watching.cancel()
        # The last frame, which reports why it ended, may still be in the socket.
        await self.channel.read_to_end(_LAST_FRAME_TIMEOUT_S)
        description = self._exit.describe(await self._exit.status())
        ends = [(session, self._end_of(session, description)) for session in self._sessions.values()]
        for session, ended in ends:
            is_reported = ended in (session.reported_end, self._reported_end)
            said = f", it said: {ended.detail}" if is_reported and ended.detail else ""
            self._log.info("the session's process %s (%s)%s", description, ended.cause.value, said)
        is_explained = not _STDERR_CAUSES.isdisjoint(ended.cause for _, ended in ends)
        if is_explained and (stderr := stderr_excerpt(self._child.stderr)):
            self._log.warning("the session's process left on stderr:\n%s", stderr)
        self.channel.close()
        self._exit.close()
        for session, ended in ends:
            session.on_process_end(ended)

    async def _watch_progress(self) -> None:
        """Kill it if it stalls, or if it does not exit soon after it reported its end or closed its socket."""
        silent = exiting = 0.0
        while silent < STALLED_SECONDS and exiting < _EXIT_TIMEOUT_S:
            self._showed_life = False
            await asyncio.sleep(_CHECK_INTERVAL_S)
            have_ended = all(session.reported_end is not None for session in self._sessions.values())
            if have_ended or self._reported_end is not None or self.channel.closed.is_set():
                exiting += _CHECK_INTERVAL_S
            elif self._showed_life or self.channel.is_paused:
                silent = 0.0
            else:
                silent += _CHECK_INTERVAL_S
        if exiting >= _EXIT_TIMEOUT_S:
            self._exit_failure = "it closed its socket and was killed"
            self._exit.kill_soon()
        else:
            await self._end_stalled()

    async def _end_stalled(self) -> None:
        """Have it dump its stacks, and kill it."""
        self._stalled = True
        self._log.warning("the session's process has stalled; it is %s", describe_state(self.pid))
        await self._exit.request_stack_dump()
        await self._exit.kill()

    def _end_of(self, session: FrameReceiver, description: str) -> Ended:
        """Return the end of a session of this dead process."""
        reported = session.reported_end or self._reported_end
        if reported is not None and reported.cause is not Cause.STOPPED:
            return reported
        if self._stalled:
            return Ended(Cause.PROCESS_STALLED, f"it reported no progress for {STALLED_SECONDS:g} seconds")
        if self._stop_reason or reported is not None:
            return Ended(Cause.STOPPED, self._stop_reason)
        error = self.channel.protocol_error
        frame_error = f"a frame could not be decoded: {error}" if error else ""
        return Ended(Cause.PROCESS_DIED, frame_error or self._exit_failure or description)


def forward_log_line(line: frames_pb2.LogLine, fields: Mapping[str, object]) -> None:
    """Log a line of a session process, with the fields that name its origin."""
    level = _LEVELS.get(line.level, logging.INFO)
    # A healthy process has cut them already; a broken or hostile one may not have.
    logger, message = cut(line.logger), cut(line.message)
    _session_log.log(level, "%s: %s", logger, message, extra={**fields, "logger_name": logger})
