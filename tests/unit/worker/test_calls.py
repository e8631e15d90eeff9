import datetime
import queue
import threading
from typing import TypeAlias, cast

import pytest

from service.worker.addresses import NoAddress
from service.worker.session.client import Client, Sent
from service.worker.session.commands import CommandExecutor
from zap.v1 import message_pb2
from zap.worker.v1 import frames_pb2

SENT = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC)


class Library:
    """Answers, raises or hangs."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hang = threading.Event()
        self.hang.set()

    def send_text(self, to: str, body: str) -> Sent:
        self.hang.wait()
        if self.error:
            raise self.error
        return Sent(f"{to} {body}", SENT)

    def request_pairing_code(self, phone: str) -> str:
        return f"code of {phone}"

    def log_out(self) -> None:
        if self.error:
            raise self.error


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
def replies() -> "queue.Queue[frames_pb2.Frame]":
    return queue.Queue()


@pytest.fixture
def code_shown() -> threading.Event:
    return threading.Event()


@pytest.fixture
def calls(library: Library, replies: "queue.Queue[frames_pb2.Frame]", code_shown: threading.Event) -> CommandExecutor:
    return CommandExecutor(cast("Client", library), replies.put, code_shown)


def text(call_id: int) -> frames_pb2.Send:
    return frames_pb2.Send(call_id=call_id, to="x@lid", text=message_pb2.Text(body="hi"))


Replies: TypeAlias = "queue.Queue[frames_pb2.Frame]"


def test_a_message_that_was_sent_has_its_id_and_time(calls: CommandExecutor, replies: Replies) -> None:
    calls.send(text(3))
    reply = replies.get(timeout=5).reply
    assert (reply.call_id, reply.message_id, reply.error) == (3, "x@lid hi", "")
    assert reply.sent_time.ToDatetime(tzinfo=datetime.UTC) == SENT


@pytest.mark.parametrize(
    ("error", "certain"),
    [
        (RuntimeError("websocket not connected"), True),
        (RuntimeError("timed out waiting for message send response"), False),
        (NoAddress("not a JID"), True),
        (ValueError(), False),
    ],
)
def test_a_failure_says_whether_it_is_certain(
    calls: CommandExecutor, library: Library, replies: Replies, error: Exception, certain: bool
) -> None:
    library.error = error
    calls.send(text(1))
    reply = replies.get(timeout=5).reply
    assert reply.error
    assert reply.certain is certain


def test_a_message_that_was_not_sent_says_what_kind_of_failure_it_is(
    calls: CommandExecutor, library: Library, replies: Replies
) -> None:
    library.error = RuntimeError("server returned error 404")
    calls.send(frames_pb2.Send(call_id=1, to="12036@g.us", text=message_pb2.Text(body="hi")))
    assert replies.get(timeout=5).reply.failure == "GROUP_NOT_FOUND"
    calls.send(text(2))
    assert replies.get(timeout=5).reply.failure == "REFUSED_BY_WHATSAPP"


def test_an_error_is_free_of_personal_data(calls: CommandExecutor, library: Library, replies: Replies) -> None:
    library.error = RuntimeError("no LID found for 491700000001@s.whatsapp.net from server")
    calls.send(text(1))
    assert "491700000001" not in replies.get(timeout=5).reply.error


def test_a_call_that_hangs_holds_up_no_other(calls: CommandExecutor, library: Library, replies: Replies) -> None:
    library.hang.clear()
    calls.send(text(1))
    calls.log_out(frames_pb2.Logout(call_id=2))
    assert replies.get(timeout=5).reply.call_id == 2
    library.hang.set()
    assert replies.get(timeout=5).reply.call_id == 1


def test_too_many_calls_at_once_are_refused_for_certain(
    calls: CommandExecutor, library: Library, replies: Replies
) -> None:
    library.hang.clear()
    for call_id in range(65):
        calls.send(text(call_id))
    reply = replies.get(timeout=5).reply
    assert (reply.call_id, reply.certain) == (64, True)
    library.hang.set()
    assert {replies.get(timeout=5).reply.error for _ in range(64)} == {""}


def test_a_code_to_type_waits_for_the_first_code_to_scan(
    calls: CommandExecutor, replies: Replies, code_shown: threading.Event
) -> None:
    calls.request_pairing_code(frames_pb2.RequestPairingCode(call_id=1, phone="49170"))
    assert replies.empty()
    code_shown.set()
    assert replies.get(timeout=5).reply.pairing_code == "code of 49170"


def test_a_message_without_content_is_refused(calls: CommandExecutor, replies: Replies) -> None:
    calls.send(frames_pb2.Send(call_id=1, to="x@lid"))
    assert replies.get(timeout=5).reply.certain
