"""`zapctl watch`: a line for each event as it comes, until ^C. It resumes by itself, so that it misses nothing."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.protobuf.json_format import MessageToJson

from service.cli.connection import Server
from service.cli.failures import explained, explanation, retry_delay
from service.cli.views import print_json, state_word, word_of
from zap.v1 import event_pb2, watch_pb2

_BULK = "raw"
"""A field of payloads that --json shows and a line does not: the whole message, in bytes."""


def watch(server: Server, request: watch_pb2.WatchRequest) -> None:
    """Print what a request asks for. Ends with ^C, when nobody reads what is printed, or by an error that lasts."""
    following = _Following(server, request)
    with explained(), _ended_by_whoever_reads():
        try:
            following.run()
        except KeyboardInterrupt:
            following.say_where_to_resume()


class _Following:
    """A stream that outlives its nodes."""

    def __init__(self, server: Server, request: watch_pb2.WatchRequest) -> None:
        self._server = server
        self._request = request
        self._has_stood = False

    def run(self) -> None:
        """For ever. Raises grpc.RpcError: UNAVAILABLE only if it never stood."""
        while True:
            try:
                self._follow()
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or not self._has_stood:
                    raise
                print(*explanation(error), "; watching on", file=sys.stderr)
                time.sleep(retry_delay(error))

    def say_where_to_resume(self) -> None:
        """For whoever goes on later; beside the events, which programs may read."""
        if self._request.resume_token:
            print(f"resume with --resume {self._request.resume_token}", file=sys.stderr)

    def _follow(self) -> None:
        # A channel for each try: one that has failed waits longer each time.
        with self._server.events() as events:
            for response in events.Watch(self._request, metadata=self._server.metadata):
                self._has_stood = True
                self._show(response)
                # Once it is shown. Setting one member of the oneof takes from_start away.
                self._request.resume_token = response.resume_token

    def _show(self, response: watch_pb2.WatchResponse) -> None:
        if self._server.as_json:
            print_json(response)
        elif response.HasField("event"):
            print(event_line(response.event), flush=True)


def event_line(event: event_pb2.Event) -> str:
    """An event in one line: when, of which session, its sequence there, of what type, and what it says."""
    when = event.time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")
    kind = word_of(event_pb2.Event.Type, event.type, "TYPE_")
    line = f"{when}  {event.session_id}  {event.sequence}  {kind}  {_payload_words(event)}"
    # Strangers write what is in it: it must not move a terminal's cursor.
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in line).rstrip()


def _payload_words(event: event_pb2.Event) -> str:
    kind = event.WhichOneof("payload")
    if kind is None:
        return ""
    if kind == "state_changed":
        change = event.state_changed
        return f"{state_word(getattr(change, 'from'))} -> {state_word(change.to)} {change.reason.code}"
    payload = type(getattr(event, kind))()
    payload.CopyFrom(getattr(event, kind))
    if _BULK in payload.DESCRIPTOR.fields_by_name:
        payload.ClearField(_BULK)
    return MessageToJson(payload, indent=None, ensure_ascii=False)


@contextmanager
def _ended_by_whoever_reads() -> Iterator[None]:
    """End in peace when the pipe behind us is closed: `zapctl watch | head` is no error."""
    try:
        yield
    except BrokenPipeError:
        # What is buffered is written once more at the end of the program: to nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
