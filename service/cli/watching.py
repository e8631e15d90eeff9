"""Prints a line for each event until ^C, and resumes after a lost stream without missing events (`zapctl watch`)."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.protobuf.json_format import MessageToJson

from service.cli.connection import ServerConnection
from service.cli.failures import explained, explanation, retry_delay
from service.cli.views import print_json, state_word, word_of
from zap.v1 import event_pb2, watch_pb2

_RAW_FIELD = "raw"
"""Field of payloads with the whole message in bytes; only --json shows it."""


def watch(server: ServerConnection, request: watch_pb2.WatchRequest) -> None:
    """Print the requested events until ^C, a closed pipe or a permanent error."""
    with explained(), _closed_pipe_ignored():
        try:
            for response in _responses(server, request):
                if server.as_json:
                    print_json(response)
                elif response.HasField("event"):
                    print(event_line(response.event), flush=True)
        except KeyboardInterrupt:
            if request.resume_token:
                # To stderr, because programs may read the events on stdout.
                print(f"resume with --resume {request.resume_token}", file=sys.stderr)


def _responses(server: ServerConnection, request: watch_pb2.WatchRequest) -> Iterator[watch_pb2.WatchResponse]:
    """Yield the responses of a stream, and resume it on another connection when it ends.

    Raises grpc.RpcError; UNAVAILABLE only before the first response. The request is the next one to send.
    """
    has_responded = False
    while True:
        try:
            # Each attempt has a new channel, because a failed channel backs off longer each time.
            with server.events() as events:
                for response in events.Watch(request, metadata=server.metadata):
                    has_responded = True
                    yield response
                    # Set only after the event is shown. Setting this member of the oneof clears from_start.
                    request.resume_token = response.resume_token
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or not has_responded:
                raise
            print(*explanation(error), "; watching on", file=sys.stderr)
            time.sleep(retry_delay(error))


def event_line(event: event_pb2.Event) -> str:
    """Return an event as one line: time, session, sequence, type and payload."""
    when = event.time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")
    kind = word_of(event_pb2.Event.Type, event.type, "TYPE_")
    line = f"{when}  {event.session_id}  {event.sequence}  {kind}  {_payload_text(event)}"
    # Payloads contain foreign text, which must not control the terminal.
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in line).rstrip()


def _payload_text(event: event_pb2.Event) -> str:
    kind = event.WhichOneof("payload")
    if kind is None:
        return ""
    if kind == "state_changed":
        change = event.state_changed
        return f"{state_word(getattr(change, 'from'))} -> {state_word(change.to)} {change.reason.code}"
    payload = type(getattr(event, kind))()
    payload.CopyFrom(getattr(event, kind))
    if _RAW_FIELD in payload.DESCRIPTOR.fields_by_name:
        payload.ClearField(_RAW_FIELD)
    return MessageToJson(payload, indent=None, ensure_ascii=False)


@contextmanager
def _closed_pipe_ignored() -> Iterator[None]:
    """End without an error when stdout is closed, as in `zapctl watch | head`."""
    try:
        yield
    except BrokenPipeError:
        # Python flushes stdout again at exit, so stdout must point to a valid file.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
