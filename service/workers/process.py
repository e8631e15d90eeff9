"""Implements `service.ports.processes.SessionProcess`: controls one session process and reports what it observes."""

import asyncio
import datetime
import logging
import time
from collections.abc import AsyncIterator, Sequence

from google.protobuf.any import pack, unpack_as
from google.protobuf.any_pb2 import Any

from service.domain.disconnect_policy import Cause
from service.domain.masking import cut
from service.domain.observations import Connected, Ended, Observed
from service.domain.records import TypedPayload
from service.domain.send_failures import SendFailure
from service.domain.start_scheduler import Lane
from service.ports.metrics import Metrics
from service.ports.processes import CallFailed, SendReply
from service.wire import framing
from service.workers.channel import WorkerChannel
from service.workers.decode import decode_end, decode_frame
from service.workers.exit_diagnostics import describe_state, empty_if_half_full, stderr_excerpt
from service.workers.exit_watcher import ExitWatcher
from service.workers.waiting import Waiting
from service.workers.zygote_process import Child
from zap.worker.v1 import calls_pb2, frames_pb2

_log = logging.getLogger(__name__)

#: Seconds of silence after which a process has stalled. A healthy one reports progress each second.
STALLED_SECONDS = 4.0
_EXIT_TIMEOUT_S = 2.0
_LAST_FRAME_TIMEOUT_S = 1.0
#: Silence is counted in checks, because a node that was suspended itself has read nothing meanwhile.
_CHECK_INTERVAL_S = 0.25
_NANOSECONDS = 1_000_000_000
_KILLED = "killed"

_STDERR_CAUSES = frozenset({Cause.PROCESS_DIED, Cause.PROCESS_STALLED, Cause.CONNECT_STALLED})
"""Ends that stderr explains: by an error, or by the stacks of all threads."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_session_log = logging.getLogger("service.session")


class Process:
    """One session process: its socket, its pidfd and the observations that wait for the core."""

    def __init__(
        self,
        child: Child,
        session_id: str,
        epoch: int,
        lane: Lane | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Count the start and the end under `lane`, the priority of the start; None counts neither."""
        self.session_id = session_id
        self._is_counted, self._lane = lane is not None, lane
        self._metrics = metrics or Metrics()
        self.epoch = epoch
        self.pid = child.pid
        self._child = child
        self._log = logging.LoggerAdapter(_log, {"session_id": session_id, "epoch": epoch, "pid": child.pid})
        self._exit = ExitWatcher(child, self._log)
        self._channel = WorkerChannel(child.connection, self._on_frame, self._log)
        self._waiting = Waiting(self._channel.pause_reading, self._channel.resume_reading)
        self._replies: dict[int, asyncio.Future[frames_pb2.Reply]] = {}
        self._last_call = 0
        self._call_slots = asyncio.Semaphore(framing.MOST_CALLS)
        self._permitted_until = 0.0
        self._reported_end: Ended | None = None
        self._stop_reason = ""
        self._stalled = False
        self._showed_life = False
        self._exit_failure = ""
        self._lifecycle: asyncio.Task[None] | None = None

    async def begin(self, start: frames_pb2.Start) -> None:
        """Send the start command. Called once, before anything else."""
        loop = asyncio.get_running_loop()
        self._lifecycle = loop.create_task(self._run(), name=f"session-process-{self.session_id}-{self.epoch}")
        await self._channel.open()
        self._permitted_until = start.permit.deadline_ns / _NANOSECONDS
        self._channel.send(frames_pb2.Command(start=start))

    # --- service.ports.processes.SessionProcess

    async def observations(self) -> AsyncIterator[Sequence[Observed]]:
        """Yield its observations in order, all that wait at a time. The last is an Ended, when the process is dead."""
        async for batch in self._waiting.batches():
            yield batch
            if isinstance(batch[-1].observation, Ended):
                return

    def permit(self, until: float) -> None:
        """Extend its run permit to this time of time.monotonic()."""
        if until > self._permitted_until:
            self._permitted_until = until
            self._channel.permit(int(until * _NANOSECONDS))

    def confirm(self, number: int) -> None:
        """Confirm that every frame up to this number is committed."""
        self._channel.confirm(number)

    async def send(self, to: str, content: TypedPayload, timeout: float) -> SendReply:
        """Send a content to a JID. Raise CallFailed."""
        send = calls_pb2.Send(to=to, content=_packed(content))
        result = unpack_as(await self._call(pack(send), timeout), calls_pb2.SendResult)
        return SendReply(result.message_id, result.sent_time.ToDatetime(tzinfo=datetime.UTC))

    async def request_pairing_code(self, phone: str, timeout: float) -> str:
        """Ask WhatsApp for a code to type on the phone. Raise CallFailed."""
        request = calls_pb2.RequestPairingCode(phone=phone)
        return unpack_as(await self._call(pack(request), timeout), calls_pb2.PairingCode).code

    async def log_out(self, timeout: float) -> None:
        """Unlink the device at WhatsApp. Raise CallFailed."""
        await self._call(pack(calls_pb2.Logout()), timeout)

    async def call(self, request: TypedPayload, timeout: float) -> TypedPayload:
        """Have any request carried out. Raise CallFailed."""
        result = await self._call(_packed(request), timeout)
        return TypedPayload(result.TypeName(), result.value)

    async def stop(self, grace: float) -> None:
        """Have it disconnect, finish the current event and exit; kill it after `grace` seconds.

        It gets no SIGTERM: session processes ignore it, because service managers send it to all processes.
        """
        self._stop_reason = self._stop_reason or "asked to stop"
        self._channel.send(frames_pb2.Command(stop=frames_pb2.Stop()))
        try:
            async with asyncio.timeout(grace):
                await self._exit.wait()
        except TimeoutError:
            self._stop_reason = f"asked to stop, and killed after {grace:g} seconds"
            self._log.warning("the session's process did not stop within %g s", grace)
            await self._exit.kill()

    async def kill(self) -> None:
        """Kill it and return when it is dead."""
        self._stop_reason = self._stop_reason or _KILLED
        await self._exit.kill()

    # --- for the pool

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
        match frame.WhichOneof("body"):
            case "progress":
                self._showed_life = True
                self._empty_stderr()
            case "log_line":
                self._forward_log_line(frame.log_line)
            case "reply":
                self._on_reply(frame.reply)
            case "ended":
                self._reported_end = self._reported_end or decode_end(frame.ended)
            case _:
                # Other frames delay the progress frame in the socket, so they count as progress.
                self._showed_life = True
                if (observation := decode_frame(frame)) is not None:
                    if isinstance(observation.observation, Connected):
                        self._count_start("CONNECTED")
                    self._waiting.add(observation, size)

    def _forward_log_line(self, line: frames_pb2.LogLine) -> None:
        level = _LEVELS.get(line.level, logging.INFO)
        # A healthy process has cut them already; a broken or hostile one may not have.
        logger, message = cut(line.logger), cut(line.message)
        fields = {"session_id": self.session_id, "epoch": self.epoch, "logger_name": logger}
        _session_log.log(level, "%s: %s", logger, message, extra=fields)

    def _empty_stderr(self) -> None:
        """Log and empty stderr if it is half full, so that a final error has room."""
        if text := empty_if_half_full(self._child.stderr):
            self._log.warning("the session's process wrote on stderr:\n%s", text)

    def _on_reply(self, reply: frames_pb2.Reply) -> None:
        pending = self._replies.pop(reply.call_id, None)
        if pending is not None and not pending.done():
            pending.set_result(reply)

    # --- calls

    async def _call(self, request: Any, timeout: float) -> Any:
        """Send a call once a slot is free, because the process refuses calls above MOST_CALLS for good."""
        deadline = time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout):
                await self._call_slots.acquire()
        except TimeoutError:
            message = f"{framing.MOST_CALLS} calls were in flight for {timeout:g} seconds"
            raise CallFailed(message, certain=True) from None
        try:
            return await self._send_call(request, max(0.0, deadline - time.monotonic()))
        finally:
            self._call_slots.release()

    async def _send_call(self, request: Any, timeout: float) -> Any:
        if not self._channel.accepts_commands or self._reported_end is not None:
            raise CallFailed("the session's process takes no commands now", certain=True)
        answer: asyncio.Future[frames_pb2.Reply] = asyncio.get_running_loop().create_future()
        self._last_call += 1
        call = frames_pb2.Call(call_id=self._last_call, request=request)
        self._replies[call.call_id] = answer
        try:
            self._channel.send(frames_pb2.Command(call=call))
            async with asyncio.timeout(timeout):
                reply = await answer
        except framing.ProtocolError as error:
            raise CallFailed(str(error), certain=True) from error
        except TimeoutError:
            raise CallFailed(f"WhatsApp did not answer within {timeout:g} seconds", certain=False) from None
        finally:
            self._replies.pop(call.call_id, None)
        if reply.HasField("failure"):
            kind = SendFailure.__members__.get(reply.failure.kind, SendFailure.NOT_SENT)
            raise CallFailed(cut(reply.failure.message), certain=reply.failure.certain, failure=kind)
        return reply.result

    # --- lifecycle

    async def _run(self) -> None:
        """Watch it until it is dead, then log, count and report its end."""
        watching = asyncio.create_task(self._watch_progress(), name=f"watch-{self.session_id}-{self.epoch}")
        await self._exit.wait()
        watching.cancel()
        # The last frame, which reports why it ended, may still be in the socket.
        await self._channel.read_to_end(_LAST_FRAME_TIMEOUT_S)
        status = await self._exit.status()
        verdict = self._verdict(status)
        said = f", it said: {verdict.detail}" if verdict is self._reported_end and verdict.detail else ""
        self._log.info("the session's process %s (%s)%s", self._exit.describe(status), verdict.cause.value, said)
        if verdict.cause in _STDERR_CAUSES and (stderr := stderr_excerpt(self._child.stderr)):
            self._log.warning("the session's process left on stderr:\n%s", stderr)
        self._channel.close()
        self._exit.close()
        for answer in self._replies.values():
            if not answer.done():
                answer.set_exception(CallFailed("the session's process ended before it answered", certain=False))
        if self._is_counted:
            cause = "KILLED" if verdict.cause is Cause.STOPPED and self._stop_reason == _KILLED else verdict.cause.value
            self._count_start(cause)
            self._metrics.process_ended(cause)
        self._waiting.add(Observed(verdict, datetime.datetime.now(datetime.UTC)))

    def _count_start(self, outcome: str) -> None:
        """Count the outcome of the start once: CONNECTED, or the cause that ended it before."""
        if self._lane is not None:
            self._metrics.start_outcome(self._lane.value, outcome)
            self._lane = None

    async def _watch_progress(self) -> None:
        """Kill it if it stalls, or if it does not exit soon after it reported its end or closed its socket."""
        silent = exiting = 0.0
        while silent < STALLED_SECONDS and exiting < _EXIT_TIMEOUT_S:
            self._showed_life = False
            await asyncio.sleep(_CHECK_INTERVAL_S)
            if self._reported_end is not None or self._channel.closed.is_set():
                exiting += _CHECK_INTERVAL_S
            elif self._showed_life or self._channel.is_paused:
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

    def _verdict(self, status: int | None) -> Ended:
        if self._reported_end is not None and self._reported_end.cause is not Cause.STOPPED:
            return self._reported_end
        if self._stalled:
            return Ended(Cause.PROCESS_STALLED, f"it reported no progress for {STALLED_SECONDS:g} seconds")
        if self._stop_reason or self._reported_end is not None:
            return Ended(Cause.STOPPED, self._stop_reason)
        error = self._channel.protocol_error
        frame_error = f"a frame could not be decoded: {error}" if error else ""
        return Ended(Cause.PROCESS_DIED, frame_error or self._exit_failure or self._exit.describe(status))


def _packed(payload: TypedPayload) -> Any:
    return Any(type_url=f"type.googleapis.com/{payload.kind}", value=payload.data)
