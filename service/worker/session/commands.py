"""Executes the node's calls to WhatsApp, each on a separate thread and with one reply."""

import io
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from service.wire.framing import LONGEST_REPLY_BYTES, MOST_CALLS
from service.worker import errors
from service.worker.addresses import NoAddress
from service.worker.outbound import messages
from service.worker.process.redaction import redact
from service.worker.session import contact_calls, group_calls
from service.worker.session.dispatch import DefinitelyNotDone, unpack
from service.worker.session.outbox import timestamp
from zap.worker.v1 import calls_pb2, frames_pb2

if TYPE_CHECKING:
    from service.worker.session.client import Client
    from service.worker.session.media_calls import MediaCalls

_FIRST_CODE_TIMEOUT_S = 15.0
_LONGEST_REPLY_BYTES = LONGEST_REPLY_BYTES - 1024
"""Leaves room for what a frame has around its reply."""


class CommandExecutor:
    """Runs each call on a separate thread.

    The library gives calls no deadline. The node has one, and a call that hangs blocks only its thread.
    """

    def __init__(
        self,
        client: "Client",
        send: Callable[[frames_pb2.Frame], None],
        code_shown: threading.Event,
        media: "MediaCalls",
    ) -> None:
        self._client = client
        self._media = media
        self._send_frame = send
        self._code_shown = code_shown
        self._slots = threading.Semaphore(MOST_CALLS)
        self._methods: dict[type[Message], Callable[[Any], Message]] = {
            calls_pb2.Send: self._send,
            calls_pb2.MarkRead: self._mark_read,
            calls_pb2.RequestPairingCode: self._request_pairing_code,
            calls_pb2.Logout: self._log_out,
            **contact_calls.methods(client),
            **group_calls.methods(client),
        }

    def execute(self, call: frames_pb2.Call, attachment: io.FileIO | None = None) -> None:
        """Begin a call, which is answered from its thread. `attachment`: the file that came with it."""
        if not self._slots.acquire(blocking=False):
            self._refuse(call, f"{MOST_CALLS} calls are in flight already")
            return
        try:
            threading.Thread(
                target=self._run, args=(call, attachment), name=f"call-{call.call_id}", daemon=True
            ).start()
        except RuntimeError as error:  # no thread can be started; the command reader must survive that
            self._slots.release()
            self._refuse(call, str(error))

    def _run(self, call: frames_pb2.Call, attachment: io.FileIO | None) -> None:
        reply = frames_pb2.Reply(call_id=call.call_id)
        request: Message | None = None
        methods = self._methods | {calls_pb2.Upload: lambda request: self._media.upload(request, attachment)}
        try:
            request = unpack(call.request, methods)
            reply.result.Pack(methods[type(request)](request))
        except Exception as error:  # noqa: BLE001 - the library raises any exception; the caller gets its text
            reply.failure.CopyFrom(_failure(error, request))
        if (size := reply.ByteSize()) > _LONGEST_REPLY_BYTES:
            # The node would take such a frame for a fault of the whole process, and end it.
            words = f"the result has {size} bytes, more than {_LONGEST_REPLY_BYTES}"
            reply = frames_pb2.Reply(call_id=call.call_id, failure=frames_pb2.CallFailure(message=words))
        self._slots.release()
        self._answer(reply)

    def _refuse(self, call: frames_pb2.Call, words: str) -> None:
        failure = frames_pb2.CallFailure(message=words, certain=True)
        self._answer(frames_pb2.Reply(call_id=call.call_id, failure=failure))

    def _answer(self, reply: frames_pb2.Reply) -> None:
        self._send_frame(frames_pb2.Frame(reply=reply))

    # --- calls

    def _send(self, request: calls_pb2.Send) -> calls_pb2.SendResult:
        content = unpack(request.content, messages.BUILDERS)
        self._media.store_inline(content)
        # Build it first, so that what cannot be sent is not announced.
        message = messages.build(content, request.to, request.secret, self._client)
        if (seconds := messages.typing_seconds(content)) > 0:
            self._show_typing(request.to)
            time.sleep(seconds)
        sent = self._client.send(request.to, message)
        return calls_pb2.SendResult(message_id=sent.message_id, sent_time=timestamp(sent.time), chat=sent.chat)

    def _show_typing(self, to: str) -> None:
        try:
            self._client.show_typing(to)
        except Exception as error:
            raise DefinitelyNotDone(f"typing could not be shown: {redact(str(error))}") from error

    def _mark_read(self, request: calls_pb2.MarkRead) -> calls_pb2.MarkReadResult:
        self._client.mark_read(request.chat, request.sender, request.message_ids, is_played=request.is_played)
        return calls_pb2.MarkReadResult()

    def _request_pairing_code(self, request: calls_pb2.RequestPairingCode) -> calls_pb2.PairingCode:
        """Request a code to type on the phone, once a QR code was shown: an earlier request blocks the library."""
        if not self._code_shown.wait(_FIRST_CODE_TIMEOUT_S):
            raise DefinitelyNotDone("WhatsApp has not answered yet; there is no pairing to ask a code for")
        return calls_pb2.PairingCode(code=self._client.request_pairing_code(request.phone))

    def _log_out(self, _: calls_pb2.Logout) -> calls_pb2.LogoutResult:
        self._client.log_out()
        return calls_pb2.LogoutResult()


def _failure(error: Exception, request: Message | None) -> frames_pb2.CallFailure:
    words = str(error) or type(error).__name__
    if isinstance(error, DefinitelyNotDone):
        return frames_pb2.CallFailure(message=words, certain=True, kind=error.kind)
    if isinstance(error, NoAddress):
        return frames_pb2.CallFailure(message=words, certain=True)
    if isinstance(request, calls_pb2.Send):
        # A message that met no connection is sent later, whatever the recipient.
        kind = (errors.lost_connection(words) or errors.send_failure(words, request.to)).name
        return frames_pb2.CallFailure(message=redact(words), certain=errors.is_certain(words), kind=kind)
    failure = errors.call_failure(words, group=getattr(request, "group", ""))
    is_certain = failure is not None or errors.is_certain(words)
    return frames_pb2.CallFailure(message=redact(words), certain=is_certain, kind=failure.name if failure else "")
