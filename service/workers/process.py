"""A session process as the core knows it (service.ports.SessionProcess)."""

import asyncio
import datetime
import logging
import time
from collections.abc import AsyncIterator, Sequence

from service.domain.disconnect_policy import Cause
from service.domain.masking import cut
from service.domain.observations import Connected, Ended, Observed
from service.domain.send_failures import SendFailure
from service.domain.start_scheduler import Lane
from service.ports import CallFailed, Metrics, SendReply
from service.wire import framing
from service.workers.channel import WorkerChannel
from service.workers.decode import decode_end, decode_frame
from service.workers.exit_diagnostics import describe_state, empty_if_half_full, stderr_excerpt
from service.workers.exit_watcher import ExitWatcher
from service.workers.waiting import Waiting
from service.workers.zygote_process import Child
from zap.v1 import message_pb2
from zap.worker.v1 import frames_pb2

_log = logging.getLogger(__name__)

#: A healthy process tells its progress each second, from its start on.
STALLED_SECONDS = 4.0
_EXIT_SECONDS = 2.0
_LAST_FRAME_TIMEOUT_S = 1.0
#: Silence is counted in looks: a node that was held up itself has not listened, and knows nothing.
_LOOK_SECONDS = 0.25
_NANOSECONDS = 1_000_000_000
_KILLED = "killed"

_SHOWN = frozenset({Cause.PROCESS_DIED, Cause.PROCESS_STALLED, Cause.CONNECT_STALLED})
"""Ends of which what is on stderr says more: last words, or where every thread was stuck."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_session_log = logging.getLogger("service.session")


class Process:
    """One session for a while: its socket, its pidfd, and what it has said that nobody has taken yet."""

    def __init__(
        self,
        child: Child,
        session_id: str,
        epoch: int,
        lane: Lane | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`lane`: in which its start waited; it and its end are counted under that. None: they are not counted."""
        self.session_id = session_id
        self._is_counted, self._lane = lane is not None, lane
        self._metrics = metrics or Metrics()
        self.epoch = epoch
        self.pid = child.pid
        self._child = child
        self._log = logging.LoggerAdapter(_log, {"session_id": session_id, "epoch": epoch, "pid": child.pid})
        self._death = ExitWatcher(child, self._log)
        self._link = WorkerChannel(child.connection, self._take, self._log)
        self._waiting = Waiting(self._link.hold, self._link.go_on)
        self._replies: dict[int, asyncio.Future[frames_pb2.Reply]] = {}
        self._last_call = 0
        self._places = asyncio.Semaphore(framing.MOST_CALLS)
        self._permitted_until = 0.0
        self._said: Ended | None = None
        self._asked = ""
        self._stalled = False
        self._showed_life = False
        self._overstayed = ""
        self._over: asyncio.Task[None] | None = None

    async def begin(self, start: frames_pb2.Start) -> None:
        """Tell it what to be. Called once, before anything else."""
        loop = asyncio.get_running_loop()
        self._over = loop.create_task(self._live(), name=f"session-process-{self.session_id}-{self.epoch}")
        await self._link.open()
        self._permitted_until = start.permit.deadline_ns / _NANOSECONDS
        self._link.send(frames_pb2.Command(start=start))

    # --- service.ports.SessionProcess

    async def observations(self) -> AsyncIterator[Sequence[Observed]]:
        """Yield what it reports, in order, all that waits at a time. The last is an Ended: the process is dead then."""
        async for batch in self._waiting.batches():
            yield batch
            if isinstance(batch[-1].observation, Ended):
                return

    def permit(self, until: float) -> None:
        """Let it go on until this moment of time.monotonic()."""
        if until > self._permitted_until:
            self._permitted_until = until
            self._link.permit(int(until * _NANOSECONDS))

    def confirm(self, number: int) -> None:
        """Tell it that every frame up to this number is committed."""
        self._link.confirm(number)

    async def send_text(self, to: str, body: str, timeout: float) -> SendReply:
        """Send a text to a JID. Raises CallFailed."""
        send = frames_pb2.Send(call_id=self._next_call(), to=to, text=message_pb2.Text(body=body))
        reply = await self._call(send.call_id, frames_pb2.Command(send=send), timeout)
        return SendReply(reply.message_id, reply.sent_time.ToDatetime(tzinfo=datetime.UTC))

    async def request_pairing_code(self, phone: str, timeout: float) -> str:
        """Ask WhatsApp for a code to type on the phone. Raises CallFailed."""
        request = frames_pb2.RequestPairingCode(call_id=self._next_call(), phone=phone)
        command = frames_pb2.Command(request_pairing_code=request)
        return (await self._call(request.call_id, command, timeout)).pairing_code

    async def log_out(self, timeout: float) -> None:
        """Unlink the device at WhatsApp. Raises CallFailed."""
        logout = frames_pb2.Logout(call_id=self._next_call())
        await self._call(logout.call_id, frames_pb2.Command(logout=logout), timeout)

    async def stop(self, grace: float) -> None:
        """Have it disconnect, finish the event in hand and exit; kill it after `grace` seconds.

        There is no SIGTERM between the two: service managers send it to all processes, so these ignore it.
        """
        self._asked = self._asked or "asked to stop"
        self._link.send(frames_pb2.Command(stop=frames_pb2.Stop()))
        try:
            async with asyncio.timeout(grace):
                await self._death.wait()
        except TimeoutError:
            self._asked = f"asked to stop, and killed after {grace:g} seconds"
            self._log.warning("the session's process did not stop within %g s", grace)
            await self._death.kill()

    async def kill(self) -> None:
        """Kill it and return when it is dead."""
        self._asked = self._asked or _KILLED
        await self._death.kill()

    # --- for the pool

    @property
    def overdue(self) -> float:
        """Seconds for which it has been killed and its death not confirmed."""
        return self._death.overdue

    async def over(self) -> None:
        """Wait until it is dead and its descriptors are closed, whether or not anybody takes its observations."""
        if self._over is not None:
            await asyncio.shield(self._over)

    # --- what it says

    def _take(self, frame: frames_pb2.Frame, size: int) -> None:
        match frame.WhichOneof("body"):
            case "progress":
                self._showed_life = True
                self._make_room_on_stderr()
            case "log_line":
                self._pass_on(frame.log_line)
            case "reply":
                self._answer(frame.reply)
            case "ended":
                self._said = self._said or decode_end(frame.ended)
            case _:
                # What waits in the socket in front of the progress shows life as well.
                self._showed_life = True
                if (observation := decode_frame(frame)) is not None:
                    if isinstance(observation.observation, Connected):
                        self._count_start("CONNECTED")
                    self._waiting.add(observation, size)

    def _pass_on(self, line: frames_pb2.LogLine) -> None:
        level = _LEVELS.get(line.level, logging.INFO)
        # Cut already, by a process that is neither broken nor hostile.
        logger, message = cut(line.logger), cut(line.message)
        fields = {"session_id": self.session_id, "epoch": self.epoch, "logger_name": logger}
        _session_log.log(level, "%s: %s", logger, message, extra=fields)

    def _make_room_on_stderr(self) -> None:
        """If it is running out of it, or its last words would find none."""
        if words := empty_if_half_full(self._child.stderr):
            self._log.warning("the session's process wrote on stderr:\n%s", words)

    def _answer(self, reply: frames_pb2.Reply) -> None:
        waiting = self._replies.pop(reply.call_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    # --- what it is asked

    def _next_call(self) -> int:
        self._last_call += 1
        return self._last_call

    async def _call(self, call_id: int, command: frames_pb2.Command, timeout: float) -> frames_pb2.Reply:
        """Ask, once there is a place: what the process has no place for it would refuse, and refused is for ever."""
        deadline = time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout):
                await self._places.acquire()
        except TimeoutError:
            words = f"{framing.MOST_CALLS} calls were in flight for {timeout:g} seconds"
            raise CallFailed(words, certain=True) from None
        try:
            return await self._ask(call_id, command, max(0.0, deadline - time.monotonic()))
        finally:
            self._places.release()

    async def _ask(self, call_id: int, command: frames_pb2.Command, timeout: float) -> frames_pb2.Reply:
        if not self._link.accepts_commands or self._said is not None:
            raise CallFailed("the session's process takes no commands now", certain=True)
        answer: asyncio.Future[frames_pb2.Reply] = asyncio.get_running_loop().create_future()
        self._replies[call_id] = answer
        try:
            self._link.send(command)
            async with asyncio.timeout(timeout):
                reply = await answer
        except framing.ProtocolError as error:
            raise CallFailed(str(error), certain=True) from error
        except TimeoutError:
            raise CallFailed(f"WhatsApp did not answer within {timeout:g} seconds", certain=False) from None
        finally:
            self._replies.pop(call_id, None)
        if reply.error:
            failure = SendFailure.__members__.get(reply.failure, SendFailure.NOT_SENT)
            raise CallFailed(cut(reply.error), certain=reply.certain, failure=failure)
        return reply

    # --- its life

    async def _live(self) -> None:
        """Watch it until it is dead, then say how it ended. The one place that says so."""
        watching = asyncio.create_task(self._watch(), name=f"watch-{self.session_id}-{self.epoch}")
        await self._death.wait()
        watching.cancel()
        # Its last frame, which says why it ended, may still be in the socket.
        await self._link.read_to_end(_LAST_FRAME_TIMEOUT_S)
        status = await self._death.status()
        verdict = self._verdict(status)
        said = f", it said: {verdict.detail}" if verdict is self._said and verdict.detail else ""
        self._log.info("the session's process %s (%s)%s", self._death.words(status), verdict.cause.value, said)
        if verdict.cause in _SHOWN and (stderr := stderr_excerpt(self._child.stderr)):
            self._log.warning("the session's process left on stderr:\n%s", stderr)
        self._link.close()
        self._death.close()
        for answer in self._replies.values():
            if not answer.done():
                answer.set_exception(CallFailed("the session's process ended before it answered", certain=False))
        if self._is_counted:
            cause = "KILLED" if verdict.cause is Cause.STOPPED and self._asked == _KILLED else verdict.cause.value
            self._count_start(cause)
            self._metrics.process_ended(cause)
        self._waiting.add(Observed(verdict, datetime.datetime.now(datetime.UTC)))

    def _count_start(self, outcome: str) -> None:
        """Count what the start came to, once: CONNECTED, or what ended it before."""
        if self._lane is not None:
            self._metrics.start_came_to(self._lane.value, outcome)
            self._lane = None

    async def _watch(self) -> None:
        """Replace it if it is stuck, or is not gone soon after it said or showed that it would be."""
        silent = leaving = 0.0
        while silent < STALLED_SECONDS and leaving < _EXIT_SECONDS:
            self._showed_life = False
            await asyncio.sleep(_LOOK_SECONDS)
            if self._said is not None or self._link.closed.is_set():
                leaving += _LOOK_SECONDS
            elif self._showed_life or self._link.is_held:
                silent = 0.0
            else:
                silent += _LOOK_SECONDS
        if leaving >= _EXIT_SECONDS:
            self._overstayed = "it closed its socket and was killed"
            self._death.kill_soon()
        else:
            await self._end_stalled()

    async def _end_stalled(self) -> None:
        """Have it write down where it is stuck, and kill it."""
        self._stalled = True
        self._log.warning("the session's process has stalled; it is %s", describe_state(self.pid))
        await self._death.request_stack_dump()
        await self._death.kill()

    def _verdict(self, status: int | None) -> Ended:
        if self._said is not None and self._said.cause is not Cause.STOPPED:
            return self._said
        if self._stalled:
            return Ended(Cause.PROCESS_STALLED, f"it said nothing for {STALLED_SECONDS:g} seconds")
        if self._asked or self._said is not None:
            return Ended(Cause.STOPPED, self._asked)
        garbled = f"what it said could not be understood: {self._link.garbled}" if self._link.garbled else ""
        return Ended(Cause.PROCESS_DIED, garbled or self._overstayed or self._death.words(status))
