"""Executes the node's calls to WhatsApp, each on a separate thread and with one reply."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from service.wire.framing import MOST_CALLS
from service.worker import errors
from service.worker.addresses import NoAddress
from service.worker.process.frame_writer import timestamp
from service.worker.process.redaction import redact
from zap.worker.v1 import frames_pb2

if TYPE_CHECKING:
    from service.worker.session.client import Client

_FIRST_CODE_TIMEOUT_S = 15.0


class DefinitelyNotDone(Exception):
    """The call was not carried out; the message says why."""


class CommandExecutor:
    """Runs each call on a separate thread.

    The library gives calls no deadline. The node has one, and a call that hangs blocks only its thread.
    """

    def __init__(self, client: "Client", send: Callable[[frames_pb2.Frame], None], code_shown: threading.Event) -> None:
        self._client = client
        self._send = send
        self._code_shown = code_shown
        self._slots = threading.Semaphore(MOST_CALLS)

    def send(self, command: frames_pb2.Send) -> None:
        """Send a message."""

        def call(reply: frames_pb2.Reply) -> None:
            if command.WhichOneof("content") != "text":
                raise DefinitelyNotDone("a kind of message that this process cannot send")
            try:
                sent = self._client.send_text(command.to, command.text.body)
            except Exception as error:
                reply.failure = errors.send_failure(str(error), command.to).name
                raise
            reply.message_id = sent.message_id
            reply.sent_time.CopyFrom(timestamp(sent.time))

        self._start(command.call_id, call)

    def request_pairing_code(self, command: frames_pb2.RequestPairingCode) -> None:
        """Request a code to type on the phone, once a QR code was shown: an earlier request blocks the library."""

        def call(reply: frames_pb2.Reply) -> None:
            if not self._code_shown.wait(_FIRST_CODE_TIMEOUT_S):
                raise DefinitelyNotDone("WhatsApp has not answered yet; there is no pairing to ask a code for")
            reply.pairing_code = self._client.request_pairing_code(command.phone)

        self._start(command.call_id, call)

    def log_out(self, command: frames_pb2.Logout) -> None:
        """Unlink the device."""
        self._start(command.call_id, lambda _: self._client.log_out())

    def _start(self, call_id: int, call: Callable[[frames_pb2.Reply], None]) -> None:
        if not self._slots.acquire(blocking=False):
            error = f"{MOST_CALLS} calls are in flight already"
            self._answer(frames_pb2.Reply(call_id=call_id, error=error, certain=True))
            return
        try:
            threading.Thread(target=self._run, args=(call_id, call), name=f"call-{call_id}", daemon=True).start()
        except RuntimeError as error:  # no thread can be started; the command reader must survive that
            self._slots.release()
            self._answer(frames_pb2.Reply(call_id=call_id, error=str(error), certain=True))

    def _run(self, call_id: int, call: Callable[[frames_pb2.Reply], None]) -> None:
        reply = frames_pb2.Reply(call_id=call_id)
        try:
            call(reply)
        except (DefinitelyNotDone, NoAddress) as error:
            reply.error, reply.certain = str(error), True
        except Exception as error:  # noqa: BLE001 - the library raises any exception; the caller gets its text
            words = str(error) or type(error).__name__
            reply.error, reply.certain = redact(words), errors.is_certain(words)
        self._slots.release()
        self._answer(reply)

    def _answer(self, reply: frames_pb2.Reply) -> None:
        self._send(frames_pb2.Frame(reply=reply))
