import ctypes
import datetime
import queue
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TypeAlias, cast

import pytest
from google.protobuf import message as protobuf
from google.protobuf.any import pack, unpack_as
from google.protobuf.duration_pb2 import Duration
from neonize.proto.Neonize_pb2 import UploadResponse
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

from service.domain.media import MediaKind
from service.worker.addresses import NoAddress, from_text
from service.worker.session.client import Client, Sent
from service.worker.session.commands import CommandExecutor
from service.worker.session.media_calls import MediaCalls
from zap.v1 import message_pb2
from zap.worker.v1 import calls_pb2, contacts_pb2, frames_pb2

SENT = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC)


class Library:
    """Answers, raises or hangs."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.typing_error: Exception | None = None
        self.done: list[str] = []
        self.too_many_lost: list[str] = []
        self.hang = threading.Event()
        self.hang.set()

    def send(self, to: str, message: Message) -> Sent:
        self.hang.wait()
        if self.error:
            raise self.error
        self.done.append("send")
        return Sent(f"{to} {message.conversation}", SENT, "9@lid")

    def show_typing(self, to: str) -> None:
        if self.typing_error:
            raise self.typing_error
        self.done.append(f"typing in {to}")

    def mark_read(self, chat: str, sender: str, message_ids: Sequence[str], *, is_played: bool) -> None:
        self.done.append(f"{chat} {sender} {' '.join(message_ids)} {is_played}")

    def request_pairing_code(self, phone: str) -> str:
        return f"code of {phone}"

    def upload(self, address: int, size: int, kind: MediaKind) -> UploadResponse:
        self.hang.wait()
        if self.error:
            raise self.error
        data = ctypes.string_at(address, size)
        return UploadResponse(
            url="",
            DirectPath=f"/{kind.name}",
            Handle="",
            MediaKey=b"k",
            FileEncSHA256=b"e",
            FileSHA256=data,
            FileLength=size,
        )

    def log_out(self) -> None:
        if self.error:
            raise self.error

    @property
    def library(self) -> "Library":
        return self

    def get_user_info(self, *_: object) -> list[object]:
        return []

    def get_blocklist(self) -> SimpleNamespace:
        return SimpleNamespace(JIDs=[from_text("1@lid")] * 600_000)


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
    media = MediaCalls(library.upload, library.too_many_lost.append)
    return CommandExecutor(cast("Client", library), replies.put, code_shown, media)


def call(call_id: int, request: protobuf.Message) -> frames_pb2.Call:
    return frames_pb2.Call(call_id=call_id, request=pack(request))


def text(call_id: int, to: str = "x@lid", typing: Duration | None = None) -> frames_pb2.Call:
    request = message_pb2.SendRequest(text=message_pb2.Text(body="hi"), typing_for=typing)
    return call(call_id, calls_pb2.Send(to=to, content=pack(request)))


Replies: TypeAlias = "queue.Queue[frames_pb2.Frame]"


def test_a_message_that_was_sent_has_its_id_and_time(calls: CommandExecutor, replies: Replies) -> None:
    calls.execute(text(3))
    reply = replies.get(timeout=5).reply
    sent = unpack_as(reply.result, calls_pb2.SendResult)
    assert (reply.call_id, sent.message_id, sent.chat) == (3, "x@lid hi", "9@lid")
    assert sent.sent_time.ToDatetime(tzinfo=datetime.UTC) == SENT


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
    calls.execute(text(1))
    failure = replies.get(timeout=5).reply.failure
    assert failure.message
    assert failure.certain is certain


def test_a_message_that_was_not_sent_says_what_kind_of_failure_it_is(
    calls: CommandExecutor, library: Library, replies: Replies
) -> None:
    library.error = RuntimeError("server returned error 404")
    calls.execute(text(1, "12036@g.us"))
    assert replies.get(timeout=5).reply.failure.kind == "GROUP_NOT_FOUND"
    calls.execute(text(2))
    assert replies.get(timeout=5).reply.failure.kind == "REFUSED_BY_WHATSAPP"


def test_typing_is_shown_before_the_message_and_holds_up_no_other_call(
    calls: CommandExecutor, library: Library, replies: Replies
) -> None:
    calls.execute(text(1, typing=Duration(nanos=300_000_000)))
    calls.execute(text(2))
    assert [replies.get(timeout=5).reply.call_id for _ in range(2)] == [2, 1]
    assert library.done.index("typing in x@lid") < len(library.done) - 1
    assert library.done.count("send") == 2
    assert library.done[-1] == "send"


def test_a_message_whose_typing_cannot_be_shown_is_not_sent(
    calls: CommandExecutor, library: Library, replies: Replies
) -> None:
    library.typing_error = RuntimeError("cannot write to 491700000001@s.whatsapp.net")
    calls.execute(text(1, typing=Duration(seconds=1)))
    failure = replies.get(timeout=5).reply.failure
    assert failure.certain
    assert "491700000001" not in failure.message
    assert library.done == []


def test_messages_are_reported_as_read(calls: CommandExecutor, library: Library, replies: Replies) -> None:
    calls.execute(call(1, calls_pb2.MarkRead(chat="1@g.us", sender="2@lid", message_ids=["A", "B"], is_played=True)))
    assert replies.get(timeout=5).reply.HasField("result")
    assert library.done == ["1@g.us 2@lid A B True"]


def test_a_call_that_another_table_refuses_says_what_kind_of_failure_it_is(
    calls: CommandExecutor, library: Library, replies: Replies
) -> None:
    calls.execute(call(1, contacts_pb2.GetUserInfo(jid="222@lid")))
    failure = replies.get(timeout=5).reply.failure
    assert (failure.certain, failure.kind) == (True, "RECIPIENT_NOT_ON_WHATSAPP")


def test_a_result_that_the_node_would_not_take_is_a_failure(calls: CommandExecutor, replies: Replies) -> None:
    calls.execute(call(1, contacts_pb2.GetBlockList()))
    failure = replies.get(timeout=5).reply.failure
    assert failure.certain is False
    assert failure.message == "the result has 4200057 bytes, more than 4193280"


def test_a_message_that_met_no_connection_says_so(calls: CommandExecutor, library: Library, replies: Replies) -> None:
    library.error = RuntimeError("failed to send message node: websocket not connected")
    calls.execute(text(1))
    failure = replies.get(timeout=5).reply.failure
    assert (failure.certain, failure.kind) == (True, "SESSION_NOT_CONNECTED")


def test_an_error_is_free_of_personal_data(calls: CommandExecutor, library: Library, replies: Replies) -> None:
    library.error = RuntimeError("no LID found for 491700000001@s.whatsapp.net from server")
    calls.execute(text(1))
    assert "491700000001" not in replies.get(timeout=5).reply.failure.message


def test_a_call_that_hangs_holds_up_no_other(calls: CommandExecutor, library: Library, replies: Replies) -> None:
    library.hang.clear()
    calls.execute(text(1))
    calls.execute(call(2, calls_pb2.Logout()))
    assert replies.get(timeout=5).reply.call_id == 2
    library.hang.set()
    assert replies.get(timeout=5).reply.call_id == 1


def test_too_many_calls_at_once_are_refused_for_certain(
    calls: CommandExecutor, library: Library, replies: Replies
) -> None:
    library.hang.clear()
    for call_id in range(65):
        calls.execute(text(call_id))
    reply = replies.get(timeout=5).reply
    assert (reply.call_id, reply.failure.certain) == (64, True)
    library.hang.set()
    assert {replies.get(timeout=5).reply.WhichOneof("outcome") for _ in range(64)} == {"result"}


def test_a_code_to_type_waits_for_the_first_code_to_scan(
    calls: CommandExecutor, replies: Replies, code_shown: threading.Event
) -> None:
    calls.execute(call(1, calls_pb2.RequestPairingCode(phone="49170")))
    assert replies.empty()
    code_shown.set()
    assert unpack_as(replies.get(timeout=5).reply.result, calls_pb2.PairingCode).code == "code of 49170"


@pytest.mark.parametrize(
    ("unknown", "kind"),
    [
        (message_pb2.Text(body="hi"), "'zap.v1.Text'"),
        (calls_pb2.Send(to="x@lid", content=pack(calls_pb2.Logout())), "'zap.worker.v1.Logout'"),
        (calls_pb2.Send(to="x@lid"), "''"),
    ],
)
def test_a_request_or_content_of_an_unknown_kind_certainly_fails(
    calls: CommandExecutor, replies: Replies, unknown: protobuf.Message, kind: str
) -> None:
    calls.execute(call(1, unknown))
    failure = replies.get(timeout=5).reply.failure
    assert (failure.certain, failure.message) == (True, f"the session's process does not know the type {kind}")
