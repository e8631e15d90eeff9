"""Two sessions in one process, on the process's side."""

import io
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from neonize.proto import Neonize_pb2 as neonize

from service.domain.disconnect_policy import Cause
from service.wire import framing
from service.worker.process.exit import EXIT_REPORTED, NODE_GONE
from service.worker.process.frame_writer import FrameWriter
from service.worker.process.host import ProcessHost, SessionFactory, SessionHandler
from service.worker.process.session_end import SessionEnd
from service.worker.process.watchdog import Watchdog
from service.worker.session.session import ClientSession
from tests.fakes.relayed import at
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2

TIMEOUT_S = 10


class FakeSession:
    """Notes its commands, and ends when it is stopped."""

    def __init__(self, start: frames_pb2.Start, writer: FrameWriter, end: SessionEnd) -> None:
        self.start_command, self.writer, self.end = start, writer, end
        self.is_started = False
        self.stall = ""
        self.commands: list[str | None] = []
        self.attachments: list[io.FileIO | None] = []

    def start(self) -> None:
        self.is_started = True

    def execute(self, command: frames_pb2.Command, attachment: io.FileIO | None = None) -> None:
        self.attachments.append(attachment)
        self.commands.append(command.WhichOneof("command"))
        if self.commands[-1] == "stop":
            self.end.end(Cause.STOPPED)

    def find_stall(self) -> str:
        return self.stall

    def each_second(self) -> None:
        pass


class FakeWatchdog:
    def __init__(self) -> None:
        self.deadlines: list[int] = []

    def permit(self, deadline_ns: int) -> None:
        self.deadlines.append(deadline_ns)


class Hosting:
    """A process with the sessions "one" and "two", seen from its node."""

    def __init__(self, make_session: SessionFactory) -> None:
        self.node, connection = socket.socketpair()
        self.node.settimeout(TIMEOUT_S)
        self._make_session = make_session
        self.sessions: dict[str, SessionHandler] = {}
        self.watchdog = FakeWatchdog()
        self.exits: list[int] = []
        self._has_exited = threading.Event()
        self._host = ProcessHost(connection, cast("Watchdog", self.watchdog), self._make, self._leave)
        threading.Thread(
            target=self._host.run, args=(frames_pb2.Start(session_id="one", database=at(1)),), daemon=True
        ).start()
        self.command(start=frames_pb2.Start(session_id="two", database=at(1)))
        self.until(lambda: len(self.sessions) == 2)

    def command(self, session_id: str = "", **command: object) -> None:
        made = frames_pb2.Command(session_id=session_id, **command)  # type: ignore[arg-type]
        self.node.sendall(framing.frame(made))

    def read(self, *kinds: str) -> frames_pb2.Frame:
        """Return the next frame of one of these kinds."""
        while (data := framing.receive(self.node)) is not None:
            frame = frames_pb2.Frame.FromString(data)
            if frame.WhichOneof("body") in kinds:
                return frame
        raise AssertionError("the process has closed its socket")

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, which the frames of a heartbeat give time to come true."""
        for _ in range(TIMEOUT_S):
            if condition():
                return
            self.read("progress")
        raise AssertionError("it does not come true")

    def exit_status(self) -> int:
        assert self._has_exited.wait(TIMEOUT_S)
        return self.exits[0]

    def close(self) -> None:
        """Let it do nothing more, as its exit would."""
        vars(self._host._reader_stall)["check"] = threading.Event().wait
        self.node.close()

    def _make(self, start: frames_pb2.Start, writer: FrameWriter, end: SessionEnd) -> SessionHandler:
        session = self.sessions[start.session_id] = self._make_session(start, writer, end)
        return session

    def _leave(self, status: int) -> None:
        self.exits.append(status)
        self._has_exited.set()


@pytest.fixture
def root_logger() -> Iterator[None]:
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def hosting(root_logger: None) -> Iterator[Hosting]:
    there = Hosting(FakeSession)
    yield there
    there.close()


def fake(hosting: Hosting, session_id: str) -> FakeSession:
    return cast("FakeSession", hosting.sessions[session_id])


def test_a_file_goes_to_the_session_of_its_command(hosting: Hosting) -> None:
    one = fake(hosting, "one")
    reading, writing = os.pipe()
    for session_id in ("one", "three"):
        call = frames_pb2.Command(session_id=session_id, call=frames_pb2.Call(call_id=1))
        framing.send_with_file(hosting.node, framing.frame(call), writing)
    os.close(writing)
    hosting.command("one", confirm=frames_pb2.Confirm(number=1))
    hosting.until(lambda: len(one.commands) == 2)
    file, none = one.attachments
    assert none is None
    assert file is not None
    file.close()
    # The file for a session that is not here was closed.
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_a_command_is_executed_by_its_session_alone(hosting: Hosting) -> None:
    one, two = fake(hosting, "one"), fake(hosting, "two")
    assert one.is_started
    assert two.is_started
    hosting.command("one", confirm=frames_pb2.Confirm(number=1))
    hosting.command("two", call=frames_pb2.Call(call_id=1))
    hosting.command("two", confirm=frames_pb2.Confirm(number=1))
    hosting.until(lambda: len(two.commands) == 2)
    assert (one.commands, two.commands) == (["confirm"], ["call", "confirm"])


def test_a_command_for_a_session_that_is_not_there_is_ignored(hosting: Hosting) -> None:
    hosting.command("three", confirm=frames_pb2.Confirm(number=1))
    line = hosting.read("log_line")
    assert line.session_id == ""
    assert "not here" in line.log_line.message
    hosting.command("one", confirm=frames_pb2.Confirm(number=1))
    hosting.until(lambda: fake(hosting, "one").commands == ["confirm"])
    assert fake(hosting, "two").commands == []


def test_the_run_permit_is_of_the_process(hosting: Hosting) -> None:
    hosting.command(start=frames_pb2.Start(session_id="three", permit=frames_pb2.Permit(deadline_ns=9)))
    hosting.command(permit=frames_pb2.Permit(deadline_ns=7))
    hosting.until(lambda: hosting.watchdog.deadlines == [7])
    assert fake(hosting, "one").commands == fake(hosting, "two").commands == []


def test_the_end_of_one_session_leaves_the_other_running(hosting: Hosting) -> None:
    hosting.command("one", stop=frames_pb2.Stop())
    frame = hosting.read("ended")
    assert (frame.session_id, frame.ended.cause) == ("one", "STOPPED")
    assert hosting.read("progress").session_id == ""
    hosting.command("two", confirm=frames_pb2.Confirm(number=1))
    hosting.until(lambda: fake(hosting, "two").commands == ["confirm"])
    assert hosting.exits == []
    fake(hosting, "two").end.end(Cause.STREAM_REPLACED, "postgres://zap:hunter2@host refused")
    assert hosting.exit_status() == EXIT_REPORTED
    frame = hosting.read("ended")
    assert (frame.session_id, frame.ended.cause) == ("two", "STREAM_REPLACED")
    assert frame.ended.detail == "postgres://<secret>@host refused"


def test_the_first_cause_of_a_session_s_end_counts(hosting: Hosting) -> None:
    one = fake(hosting, "one").end
    lingering = threading.Thread(target=one.end_with, args=(frames_pb2.Ended(cause="LOGGED_OUT_ON_PHONE"), 0.5))
    lingering.start()
    while one._once.acquire(blocking=False):
        one._once.release()
    one.end(Cause.CLIENT_ERROR)
    lingering.join()
    assert hosting.read("ended").ended.cause == "LOGGED_OUT_ON_PHONE"
    fake(hosting, "two").end.end(Cause.STOPPED)
    assert hosting.exit_status() == 0
    assert hosting.read("ended").session_id == "two"


def test_a_stop_of_the_process_stops_all(hosting: Hosting) -> None:
    hosting.command(stop=frames_pb2.Stop())
    assert hosting.exit_status() == 0
    assert {hosting.read("ended").session_id for _ in range(2)} == {"one", "two"}


def test_a_session_that_stalls_ends_the_process(hosting: Hosting) -> None:
    fake(hosting, "one").stall = "it is stuck"
    assert hosting.exit_status() == EXIT_REPORTED
    frame = hosting.read("ended")
    assert (frame.session_id, frame.ended.cause, frame.ended.detail) == ("", "PROCESS_STALLED", "it is stuck")


def test_a_process_whose_node_is_gone_exits_at_once(hosting: Hosting) -> None:
    hosting.node.close()
    assert hosting.exit_status() == NODE_GONE


def test_a_session_that_cannot_be_made_ends_alone(root_logger: None) -> None:
    def make(start: frames_pb2.Start, writer: FrameWriter, end: SessionEnd) -> SessionHandler:
        if start.session_id == "three":
            raise OSError("no such certificate")
        return FakeSession(start, writer, end)

    hosting = Hosting(make)
    hosting.command(start=frames_pb2.Start(session_id="three"))
    frame = hosting.read("ended")
    assert (frame.session_id, frame.ended.cause) == ("three", "CLIENT_ERROR")
    assert "no such certificate" in frame.ended.detail
    assert hosting.read("progress").session_id == ""
    assert hosting.exits == []
    hosting.close()


class UnconnectedSession(ClientSession):
    """A session that handles events, and does not load the library."""

    def start(self) -> None:
        self._events._is_first_login_done = True


def read_receipt(message_id: str) -> neonize.Receipt:
    return neonize.Receipt(MessageIDs=[message_id], Type=neonize.Receipt.READ)


def test_events_of_two_sessions_are_committed_apart(root_logger: None) -> None:
    hosting = Hosting(UnconnectedSession)
    threads = {}
    for session_id in ("one", "two"):
        session = cast("ClientSession", hosting.sessions[session_id])
        threads[session_id] = threading.Thread(target=session._on_event, args=(read_receipt(session_id),), daemon=True)
        threads[session_id].start()
        frame = hosting.read("event")
        assert (frame.session_id, frame.number) == (session_id, 1)
        assert list(frame.event.receipt.message_ids) == [session_id]
        assert frame.event.type == event_pb2.Event.TYPE_RECEIPT
    hosting.command("two", confirm=frames_pb2.Confirm(number=1))
    threads["two"].join(TIMEOUT_S)
    assert not threads["two"].is_alive()
    assert threads["one"].is_alive()
    hosting.command("one", confirm=frames_pb2.Confirm(number=1))
    threads["one"].join(TIMEOUT_S)
    assert not threads["one"].is_alive()
    hosting.close()
