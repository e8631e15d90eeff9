import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from service.domain.disconnects import Cause
from service.pool import wire
from service.whatsapp.ending import NODE_GONE, SAID_WHY, Ending
from service.whatsapp.lines import LogLines
from service.whatsapp.reports import Reports
from service.whatsapp.unconfirmed import Unconfirmed
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


def sending(reports: Reports, count: int, raw: bytes = b"") -> threading.Thread:
    """Numbered frames from a thread of their own."""

    def send() -> None:
        for _ in range(count):
            reports.send_numbered(message(raw))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def read(connection: socket.socket) -> frames_pb2.Frame:
    data = wire.receive(connection)
    assert data is not None
    return frames_pb2.Frame.FromString(data)


Pair = tuple[socket.socket, socket.socket]
INTERRUPTED = frames_pb2.Ended(cause=Cause.PAIRING_INTERRUPTED.name)


def test_only_what_must_not_be_lost_is_numbered_and_kept(pair: Pair) -> None:
    unconfirmed = Unconfirmed()
    reports = Reports(pair[1], unconfirmed)
    reports.send_numbered(message())
    reports.send(frames_pb2.Frame(disconnected=frames_pb2.Disconnected()))
    reports.send_numbered(message())
    assert [read(pair[0]).number for _ in range(3)] == [1, 0, 2]
    assert [kept.number for kept in unconfirmed.all()] == [1, 2]
    unconfirmed.confirm(1)
    assert [kept.number for kept in unconfirmed.all()] == [2]


def test_to_have_sent_something_is_not_to_have_waited_for_the_node(pair: Pair) -> None:
    reports = Reports(pair[1], Unconfirmed())
    reports.send_numbered(message())
    reports.send(progress())
    assert not reports.waited_for_node()
    thread = sending(reports, 200, bytes(10_000))
    thread.join(0.3)
    assert thread.is_alive()
    assert reports.waited_for_node()
    reports.close()
    thread.join(5)
    assert reports.waited_for_node(), "since it was last asked"
    assert not reports.waited_for_node()


def test_every_frame_has_a_time(pair: Pair) -> None:
    reports = Reports(pair[1], Unconfirmed())
    reports.send_numbered(message())
    assert read(pair[0]).time.seconds > 0


def test_a_full_socket_makes_messages_wait_and_progress_vanish(pair: Pair) -> None:
    reports = Reports(pair[1], Unconfirmed())
    big = 50
    writer = sending(reports, big, bytes(100_000))
    while reports.offer(progress()):
        pass
    assert writer.is_alive()
    seen: list[int] = []
    while len(seen) < big:
        if number := read(pair[0]).number:
            seen.append(number)
    assert seen == list(range(1, big + 1))
    writer.join()


def test_numbers_are_in_order_whoever_sends(pair: Pair) -> None:
    reports = Reports(pair[1], Unconfirmed())
    for _ in range(4):
        sending(reports, 200, bytes(500))
    assert [read(pair[0]).number for _ in range(800)] == list(range(1, 801))


def test_without_a_node_messages_are_kept_and_nobody_waits(pair: Pair) -> None:
    unconfirmed = Unconfirmed(most_frames=2)
    reports = Reports(pair[1], unconfirmed)
    pair[0].close()
    for _ in range(10):
        reports.send_numbered(message())
    assert [kept.number for kept in unconfirmed.all()] == list(range(1, 11))


def test_too_much_unconfirmed_makes_messages_wait_but_not_progress(pair: Pair) -> None:
    unconfirmed = Unconfirmed(most_frames=2)
    reports = Reports(pair[1], unconfirmed)
    writer = sending(reports, 3)
    assert [read(pair[0]).number for _ in range(2)] == [1, 2]
    assert reports.offer(progress())
    assert read(pair[0]).WhichOneof("body") == "progress"
    assert writer.is_alive()
    unconfirmed.confirm(1)
    assert read(pair[0]).number == 3
    writer.join()


def test_whoever_waits_for_room_in_the_socket_goes_on_when_the_node_is_given_up(pair: Pair) -> None:
    unconfirmed = Unconfirmed()
    reports = Reports(pair[1], unconfirmed)
    writer = sending(reports, 50, bytes(100_000))
    while reports.offer(progress()):
        pass
    assert writer.is_alive()
    reports.close()
    writer.join(5)
    assert not writer.is_alive()
    assert [kept.number for kept in unconfirmed.all()] == list(range(1, 51))


def test_a_node_that_is_as_good_as_gone_finds_what_there_was_room_for(pair: Pair) -> None:
    unconfirmed = Unconfirmed(most_frames=1)
    reports = Reports(pair[1], unconfirmed)
    reports.send_numbered(message())
    reports.despair()
    assert not reports.is_heard
    for _ in range(30):
        # Sooner or later there is no room for a whole frame: nobody waits, and none follows it.
        reports.send_numbered(message(bytes(100_000)))
    assert [kept.number for kept in unconfirmed.all()] == list(range(1, 32))
    received = [read(pair[0]).number for _ in range(3)]
    while (data := wire.receive(pair[0])) is not None:
        received.append(frames_pb2.Frame.FromString(data).number)
    assert received == list(range(1, len(received) + 1))
    assert len(received) < 31


def test_whoever_waits_for_room_when_the_node_is_as_good_as_gone_goes_on(pair: Pair) -> None:
    unconfirmed = Unconfirmed()
    reports = Reports(pair[1], unconfirmed)
    writer = sending(reports, 50, bytes(100_000))
    while reports.offer(progress()):
        pass
    reports.despair()
    writer.join(5)
    assert not writer.is_alive()
    assert [kept.number for kept in unconfirmed.all()] == list(range(1, 51))


@pytest.mark.parametrize("settle", [lambda u: u.confirm(2), lambda u: u.unbound()])
def test_what_is_unconfirmed_is_waited_for_until_it_is_or_nobody_will(settle: Callable[[Unconfirmed], None]) -> None:
    unconfirmed = Unconfirmed()
    unconfirmed.add(1, b"")
    unconfirmed.add(2, b"")
    waiting = threading.Thread(target=unconfirmed.wait_until_settled, args=(60.0,), daemon=True)
    waiting.start()
    unconfirmed.confirm(1)
    waiting.join(0.1)
    assert waiting.is_alive()
    settle(unconfirmed)
    waiting.join(5)
    assert not waiting.is_alive()


def test_many_bytes_count_as_too_much() -> None:
    unconfirmed = Unconfirmed(most_bytes=10)
    unconfirmed.add(1, bytes(10))
    adding = threading.Thread(target=lambda: unconfirmed.add(2, b""), daemon=True)
    adding.start()
    assert len(unconfirmed.all()) == 1
    unconfirmed.unbound()
    adding.join()
    assert len(unconfirmed.all()) == 2


def test_the_first_cause_ends_the_process_and_nothing_follows_it(pair: Pair) -> None:
    reports = Reports(pair[1], Unconfirmed())
    left: list[int] = []
    ending = Ending(reports, left.append)
    ending.end(Cause.UNREACHABLE, "postgres://zap:hunter2@host refused")
    ending.end(Cause.STOPPED)
    assert left == [SAID_WHY]
    ended = read(pair[0]).ended
    assert (ended.cause, ended.detail) == ("UNREACHABLE", "postgres://<secret>@host refused")
    assert not reports.offer(progress())


@pytest.mark.parametrize("silently", [False, True])
def test_every_end_settles_what_is_left_before_it_leaves(pair: Pair, silently: bool) -> None:
    steps: list[object] = []
    ending = Ending(Reports(pair[1], Unconfirmed()), steps.append, lambda: steps.append("settled"))
    if silently:
        ending.leave_silently(NODE_GONE, lambda: steps.append("prepared"))
        assert steps == ["prepared", "settled", NODE_GONE]
    else:
        ending.end(Cause.STOPPED)
        assert steps == ["settled", 0]


def test_nothing_that_fails_on_the_way_out_keeps_a_process_alive(pair: Pair) -> None:
    def fail() -> None:
        raise RuntimeError

    left: list[int] = []
    with pytest.raises(RuntimeError):
        Ending(Reports(pair[1], Unconfirmed()), left.append, fail).leave_silently(NODE_GONE, fail)
    assert left == [NODE_GONE]


def test_a_process_that_gets_no_thread_ends_all_the_same(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    left: list[int] = []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    Ending(Reports(pair[1], Unconfirmed()), left.append).end(Cause.DATABASE_LOST)
    assert left == [SAID_WHY]


def test_other_causes_wait_for_one_that_leaves_without_a_word(pair: Pair) -> None:
    left: list[int] = []
    ending = Ending(Reports(pair[1], Unconfirmed()), left.append)
    ending.leave_silently(NODE_GONE, lambda: ending.end(Cause.CLIENT_ERROR, "the library's connect() returned"))
    assert left == [NODE_GONE]


def test_an_end_at_once_waits_for_no_confirmation_as_long_as_there_is_a_node(pair: Pair) -> None:
    left: list[str] = []
    reports = Reports(pair[1], Unconfirmed())
    ending = Ending(reports, lambda status: left.append(f"left with {status}"), lambda: left.append("settled"))
    before = threading.active_count()
    ending.end_at_once(frames_pb2.Ended(cause="CLIENT_ERROR", detail="token=abc"))
    ending.end_at_once(INTERRUPTED)
    assert left == [f"left with {SAID_WHY}"]
    assert threading.active_count() <= before
    assert read(pair[0]).ended == frames_pb2.Ended(cause="CLIENT_ERROR", detail="token=<secret>")


def test_without_a_node_what_it_did_not_confirm_is_seen_to_before_any_end(pair: Pair) -> None:
    left: list[str] = []
    reports = Reports(pair[1], Unconfirmed())
    reports.close()
    ending = Ending(reports, lambda status: left.append(f"left with {status}"), lambda: left.append("settled"))
    ending.end_at_once(frames_pb2.Ended(cause="CLIENT_ERROR"))
    assert left == ["settled", f"left with {SAID_WHY}"]


def test_a_vague_cause_gives_way_to_a_better_one(pair: Pair) -> None:
    gone = threading.Event()
    ending = Ending(Reports(pair[1], Unconfirmed()), lambda _: gone.set())
    ending.end_soon(INTERRUPTED)
    ending.end(Cause.CLIENT_OUTDATED)
    assert gone.wait(5)
    assert read(pair[0]).ended.cause == "CLIENT_OUTDATED"


def test_a_vague_cause_is_good_enough_if_no_other_comes(pair: Pair) -> None:
    gone = threading.Event()
    Ending(Reports(pair[1], Unconfirmed()), lambda _: gone.set()).end_soon(INTERRUPTED)
    assert gone.wait(5)
    assert read(pair[0]).ended.cause == "PAIRING_INTERRUPTED"


def test_lines_that_were_dropped_are_counted() -> None:
    taken: list[frames_pb2.Frame] = []
    has_room = [True, False, False, True]

    def offer(frame: frames_pb2.Frame) -> bool:
        taken.append(frame)
        return has_room[len(taken) - 1]

    lines = LogLines(offer)
    for level in ("INFO", "WARN", "DEBUG", "ERROR", "CRITICAL"):
        lines.write(level, "whatsmeow.Client", "from 491700000001")
    assert taken[0].log_line == frames_pb2.LogLine(level="info", logger="whatsmeow.Client", message="from …01")
    assert taken[1].log_line.level == "warning"
    assert taken[3].log_line.message == "from …01 (2 lines before this one were dropped)"
