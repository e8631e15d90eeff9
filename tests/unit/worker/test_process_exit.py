import queue
import socket
import threading
from collections.abc import Iterator

import pytest

from service.domain.disconnect_policy import Cause
from service.wire import framing
from service.worker.process.exit import EXIT_REPORTED, ProcessExit
from service.worker.process.frame_writer import FrameWriter
from service.worker.process.log_forwarder import LogForwarder
from service.worker.process.session_end import SessionEnd
from service.worker.session.outbox import Outbox
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def message(raw: bytes = b"") -> frames_pb2.Frame:
    return frames_pb2.Frame(event=event_pb2.Event(message_received=event_pb2.MessageReceived(raw=raw)))


def progress() -> frames_pb2.Frame:
    return frames_pb2.Frame(progress=frames_pb2.Progress())


def read(connection: socket.socket) -> frames_pb2.Frame:
    data = framing.receive(connection)
    assert data is not None
    return frames_pb2.Frame.FromString(data)


Pair = tuple[socket.socket, socket.socket]
INTERRUPTED = frames_pb2.Ended(cause=Cause.PAIRING_INTERRUPTED.name)


def committing(reports: Outbox, *frames: frames_pb2.Frame) -> threading.Thread:
    """An event whose frames are committed by a thread of their own."""
    thread = threading.Thread(target=reports.commit, args=(frames,), daemon=True)
    thread.start()
    return thread


def test_an_event_is_in_hand_until_all_its_frames_are_committed(pair: Pair) -> None:
    reports = Outbox("one", FrameWriter(pair[1]))
    first = committing(reports, message(), message())
    assert [read(pair[0]).number for _ in range(2)] == [1, 2]
    reports.committed(1)
    first.join(0.1)
    assert first.is_alive()
    reports.committed(2)
    first.join(5)
    assert not first.is_alive()
    second = committing(reports, message())
    assert read(pair[0]).number == 3
    reports.committed(2)
    second.join(0.1)
    assert second.is_alive(), "that was the event before"
    reports.committed(3)
    second.join(5)


def test_an_event_without_frames_waits_for_nothing(pair: Pair) -> None:
    reports = Outbox("one", FrameWriter(pair[1]))
    reports.commit(())


def test_an_event_that_cannot_be_translated_sends_nothing(pair: Pair) -> None:
    def frames() -> Iterator[frames_pb2.Frame]:
        yield message()
        raise ValueError("what nobody expected")

    reports = Outbox("one", FrameWriter(pair[1]))
    with pytest.raises(ValueError, match="expected"):
        reports.commit(frames())
    reports.send(progress())
    assert read(pair[0]).WhichOneof("body") == "progress"


def test_an_event_in_hand_keeps_no_other_frame_waiting(pair: Pair) -> None:
    reports = Outbox("one", FrameWriter(pair[1]))
    committing(reports, message())
    assert read(pair[0]).number == 1
    assert reports.offer(progress())
    reports.send(frames_pb2.Frame(disconnected=frames_pb2.Disconnected()))
    assert [read(pair[0]).number for _ in range(2)] == [0, 0]


def test_an_event_whose_node_is_gone_never_counts_as_handled(pair: Pair) -> None:
    reports = Outbox("one", FrameWriter(pair[1]))
    pair[0].close()
    in_hand = committing(reports, message(), message())
    in_hand.join(0.2)
    assert in_hand.is_alive()
    assert not reports.offer(progress())


def test_to_have_sent_something_is_not_to_have_waited_for_the_node(pair: Pair) -> None:
    reports = Outbox("one", FrameWriter(pair[1]))
    reports.send(progress())
    assert not reports.waited_for_node()
    in_hand = committing(reports, message())
    in_hand.join(0.2)
    assert reports.waited_for_node()
    reports.committed(1)
    in_hand.join(5)
    assert reports.waited_for_node(), "since it was last asked"
    assert not reports.waited_for_node()


def test_every_frame_has_a_time_and_names_its_session(pair: Pair) -> None:
    reports = Outbox("one", FrameWriter(pair[1]))
    committing(reports, message())
    reports.send(frames_pb2.Frame(disconnected=frames_pb2.Disconnected()))
    assert reports.offer(frames_pb2.Frame(log_line=frames_pb2.LogLine()))
    for _ in range(3):
        frame = read(pair[0])
        assert frame.time.seconds > 0
        assert frame.session_id == "one"


def test_the_commits_of_two_sessions_of_one_process_do_not_mix(pair: Pair) -> None:
    writer = FrameWriter(pair[1])
    one, two = Outbox("one", writer), Outbox("two", writer)
    first, second = committing(one, message()), committing(two, message())
    frames = {frame.session_id: frame.number for frame in (read(pair[0]), read(pair[0]))}
    assert frames == {"one": 1, "two": 1}
    two.committed(1)
    second.join(5)
    first.join(0.1)
    assert first.is_alive()
    one.committed(1)
    first.join(5)
    assert not first.is_alive()


def test_a_full_socket_makes_messages_wait_and_progress_vanish(pair: Pair) -> None:
    reports = Outbox("one", FrameWriter(pair[1]))
    count = 50
    committing(reports, *(message(bytes(100_000)) for _ in range(count)))
    while reports.offer(progress()):
        pass
    seen: list[int] = []
    while len(seen) < count:
        if number := read(pair[0]).number:
            seen.append(number)
    assert seen == list(range(1, count + 1))


def test_the_first_cause_ends_the_process_and_nothing_follows_it(pair: Pair) -> None:
    writer = FrameWriter(pair[1])
    left: list[int] = []
    process = ProcessExit(writer, left.append)
    process.end(Cause.UNREACHABLE, "postgres://zap:hunter2@host refused")
    process.end(Cause.STOPPED)
    process.end_with(frames_pb2.Frame(session_id="one", ended=INTERRUPTED))
    assert left == [EXIT_REPORTED]
    ended = read(pair[0]).ended
    assert (ended.cause, ended.detail) == ("UNREACHABLE", "postgres://<secret>@host refused")
    assert not writer.offer(progress())


def test_a_process_that_gets_no_thread_ends_all_the_same(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    left: list[int] = []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    ProcessExit(FrameWriter(pair[1]), left.append).end(Cause.DATABASE_LOST)
    assert left == [EXIT_REPORTED]


def test_a_vague_cause_gives_way_to_a_better_one() -> None:
    ends: queue.Queue[frames_pb2.Ended] = queue.Queue()
    ending = SessionEnd(ends.put)
    ending.end_soon(INTERRUPTED, 0.1)
    ending.end(Cause.CLIENT_OUTDATED)
    assert ends.get(timeout=5).cause == "CLIENT_OUTDATED"
    with pytest.raises(queue.Empty):
        ends.get(timeout=0.5)


def test_a_vague_cause_is_good_enough_if_no_other_comes() -> None:
    ends: queue.Queue[frames_pb2.Ended] = queue.Queue()
    SessionEnd(ends.put).end_soon(INTERRUPTED)
    assert ends.get(timeout=5).cause == "PAIRING_INTERRUPTED"


def test_lines_that_were_dropped_are_counted() -> None:
    taken: list[frames_pb2.Frame] = []
    has_room = [True, False, False, True]

    def offer(frame: frames_pb2.Frame) -> bool:
        taken.append(frame)
        return has_room[len(taken) - 1]

    lines = LogForwarder(offer)
    for level in ("INFO", "WARN", "DEBUG", "ERROR", "CRITICAL"):
        lines.write(level, "whatsmeow.Client", "from 491700000001")
    assert taken[0].log_line == frames_pb2.LogLine(level="info", logger="whatsmeow.Client", message="from …01")
    assert taken[1].log_line.level == "warning"
    assert taken[3].log_line.message == "(2 lines before this one were dropped) from …01"
