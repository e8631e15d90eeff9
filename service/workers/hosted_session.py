"""Implements `service.ports.processes.SessionProcess`: one session, as its process runs it.

A process has one session today, so its run permit, its stop and its death are the session's too. Comments say what
becomes of them with several sessions in one process.
"""

import asyncio
import datetime
import functools
import time
from collections.abc import AsyncIterator, Sequence

from google.protobuf.any import pack, unpack_as
from google.protobuf.any_pb2 import Any

from service.domain.disconnect_policy import Cause
from service.domain.masking import cut
from service.domain.media import MediaKind, StoredMedia
from service.domain.observations import Connected, Ended, Observed
from service.domain.records import TypedPayload
from service.domain.start_scheduler import Lane
from service.ports.metrics import Metrics
from service.ports.processes import CallFailed, SendReply
from service.wire import framing
from service.workers.decode import decode_end, decode_frame
from service.workers.process import KILLED, Process, forward_log_line
from service.workers.waiting import Waiting
from zap.v1 import media_pb2
from zap.worker.v1 import calls_pb2, frames_pb2

_ANSWER_MARGIN_S = 2.0


class HostedSession:
    """The observations of one session that wait for the core, and its calls to WhatsApp."""

    def __init__(
        self, process: Process, session_id: str, epoch: int, lane: Lane | None = None, metrics: Metrics | None = None
    ) -> None:
        """Count the start and the end under `lane`, the priority of the start; None counts neither."""
        self.process = process
        self.session_id = session_id
        self.epoch = epoch
        self._is_counted, self._lane = lane is not None, lane
        self._metrics = metrics or Metrics()
        self._waiting = Waiting(
            functools.partial(process.channel.pause_reading, session_id),
            functools.partial(process.channel.resume_reading, session_id),
        )
        self._replies: dict[int, asyncio.Future[frames_pb2.Reply]] = {}
        self._last_call = 0
        self._call_slots = asyncio.Semaphore(framing.MOST_CALLS)
        self.reported_end: Ended | None = None

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self.process.pid

    # --- service.ports.processes.SessionProcess

    async def observations(self) -> AsyncIterator[Sequence[Observed]]:
        """Yield its observations in order, all that wait at a time. The last is an Ended, when the process is dead."""
        async for batch in self._waiting.batches():
            yield batch
            if isinstance(batch[-1].observation, Ended):
                return

    def permit(self, until: float) -> None:
        """Extend its run permit to this time of time.monotonic()."""
        # The permit is of the session's lease, the watchdog of the process: of several sessions, the earliest counts.
        self.process.permit(until)

    def confirm(self, number: int) -> None:
        """Confirm that every frame up to this number is committed."""
        confirm = frames_pb2.Confirm(number=number)
        self.process.channel.send_latest(frames_pb2.Command(session_id=self.session_id, confirm=confirm))

    async def send(self, to: str, content: TypedPayload, timeout: float, secret: bytes = b"") -> SendReply:
        """Send a content to a JID. Raise CallFailed."""
        send = calls_pb2.Send(to=to, content=_packed(content), secret=secret)
        result = unpack_as(await self._call(pack(send), timeout), calls_pb2.SendResult)
        return SendReply(result.message_id, result.sent_time.ToDatetime(tzinfo=datetime.UTC), result.chat)

    async def upload(self, kind: MediaKind, descriptor: int, size: int, timeout: float) -> StoredMedia:
        """Store a file, given as a sealed memfd, at WhatsApp. Raise CallFailed."""
        request = calls_pb2.Upload(kind=media_pb2.MediaKind.Value(f"MEDIA_KIND_{kind.name}"), size=size)
        request.timeout.FromTimedelta(datetime.timedelta(seconds=timeout))
        # The process keeps the time itself, to count a thread that it loses; so wait a little longer for its answer.
        packed = await self._call(pack(request), timeout + _ANSWER_MARGIN_S, descriptor)
        result = unpack_as(packed, calls_pb2.UploadResult)
        return StoredMedia(
            kind, result.direct_path, result.media_key, result.encrypted_sha256, result.sha256, result.size
        )

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
        """Have it disconnect, finish the current event and end; kill its process after `grace` seconds."""
        # Of several sessions, this one alone gets the command; its process is stopped with the last one.
        await self.process.stop(grace)

    async def kill(self) -> None:
        """Kill its process and return when it is dead. Of several sessions, that ends the others too."""
        await self.process.kill()

    # --- service.workers.process.FrameReceiver

    def on_frame(self, frame: frames_pb2.Frame, size: int) -> None:
        """Take a frame of this session. Nothing counts that comes after its end."""
        if self.reported_end is not None:
            return
        match frame.WhichOneof("body"):
            case "log_line":
                forward_log_line(frame.log_line, {"session_id": self.session_id, "epoch": self.epoch})
            case "reply":
                self._on_reply(frame.reply, size)
            case "ended":
                self.reported_end = decode_end(frame.ended)
            case _:
                if (observation := decode_frame(frame)) is not None:
                    if isinstance(observation.observation, Connected):
                        self._count_start("CONNECTED")
                    self._waiting.add(observation, size)

    def on_process_end(self, ended: Ended) -> None:
        """Fail the calls in flight, and count and report the end."""
        for answer in self._replies.values():
            if not answer.done():
                answer.set_exception(CallFailed("the session's process ended before it answered", certain=False))
        if self._is_counted:
            cause = "KILLED" if ended == Ended(Cause.STOPPED, KILLED) else ended.cause.value
            self._count_start(cause)
            self._metrics.process_ended(cause)
        self._waiting.add(Observed(ended, datetime.datetime.now(datetime.UTC)))

    def _count_start(self, outcome: str) -> None:
        """Count the outcome of the start once: CONNECTED, or the cause that ended it before."""
        if self._lane is not None:
            self._metrics.start_outcome(self._lane.value, outcome)
            self._lane = None

    # --- calls

    def _on_reply(self, reply: frames_pb2.Reply, size: int) -> None:
        pending = self._replies.pop(reply.call_id, None)
        if pending is not None and not pending.done():
            self._waiting.hold_reply(reply.call_id, size)
            pending.set_result(reply)

    async def _call(self, request: Any, timeout: float, descriptor: int | None = None) -> Any:
        """Send a call once a slot is free, because the process refuses calls above MOST_CALLS for good.

        `descriptor`: a file to attach.
        """
        deadline = time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout):
                await self._call_slots.acquire()
        except TimeoutError:
            message = f"{framing.MOST_CALLS} calls were in flight for {timeout:g} seconds"
            raise CallFailed(message, certain=True) from None
        try:
            return await self._send_call(request, max(0.0, deadline - time.monotonic()), descriptor)
        finally:
            self._call_slots.release()

    async def _send_call(self, request: Any, timeout: float, descriptor: int | None) -> Any:
        if not self.process.accepts_commands or self.reported_end is not None:
            raise CallFailed("the session's process takes no commands now", certain=True)
        answer: asyncio.Future[frames_pb2.Reply] = asyncio.get_running_loop().create_future()
        self._last_call += 1
        call = frames_pb2.Call(call_id=self._last_call, request=request)
        self._replies[call.call_id] = answer
        try:
            async with asyncio.timeout(timeout):
                command = frames_pb2.Command(session_id=self.session_id, call=call)
                if descriptor is None:
                    self.process.channel.send(command)
                else:
                    await self.process.channel.send_with_file(command, descriptor)
                reply = await answer
        except TimeoutError:
            raise CallFailed(f"WhatsApp did not answer within {timeout:g} seconds", certain=False) from None
        except (framing.ProtocolError, OSError) as error:
            raise CallFailed(str(error), certain=True) from error
        finally:
            self._replies.pop(call.call_id, None)
            self._waiting.take_reply(call.call_id)
        if reply.HasField("failure"):
            failure = reply.failure
            raise CallFailed(cut(failure.message), certain=failure.certain, kind=failure.kind, is_answer=True)
        return reply.result


def _packed(payload: TypedPayload) -> Any:
    return Any(type_url=f"type.googleapis.com/{payload.kind}", value=payload.data)
