"""The node's side of a session process, against stand-ins that do what real ones must not."""

import asyncio
import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from google.protobuf import duration_pb2
from prometheus_client import CollectorRegistry

from service.domain.disconnect_policy import Cause
from service.domain.masking import CUT, LONGEST_TEXT_CHARACTERS
from service.domain.observations import Disconnected, InboundEvent
from service.ports.processes import CallFailed, ProcessPool
from service.telemetry.metrics import NodeMetrics
from service.wire import framing
from service.workers.exit_diagnostics import read_stderr
from service.workers.hosted_session import HostedSession
from service.workers.pool import Pool
from service.workers.process import STALLED_SECONDS
from service.workers.waiting import HIGH_BYTES
from tests.contents import payload, text_content
from tests.eventually import HANG_S, eventually
from tests.integration.session_children import ScriptedChild, all_of
from zap.v1 import event_pb2, message_pb2
from zap.worker.v1 import frames_pb2

Begin = Callable[[str], Awaitable[HostedSession]]


def as_the_core_sees_it(pool: Pool) -> ProcessPool:
    """The type checker holds that this is what the core was promised."""
    return pool


TELL_MESSAGES = """
for number in range(1, {count} + 1):
    tell(number=number, event=got(raw=bytes(2000)))
"""
OBEY = """
while (received := command()) is not None:
    match received.WhichOneof("command"):
        case "stop":
            tell(ended=frames_pb2.Ended(cause="STOPPED"))
            os._exit(0)
        case "call":
            call, send, sent = received.call, calls_pb2.Send(), message_pb2.SendRequest()
            reply = frames_pb2.Reply(call_id=call.call_id)
            if not call.request.Unpack(send):
                reply.result.CopyFrom(call.request)
            elif send.content.Unpack(sent) and sent.text.body == "refuse":
                reply.failure.message = "refused"
            else:
                reply.result.Pack(calls_pb2.SendResult(message_id=send.to))
            if sent.text.body != "never":
                tell(reply=reply)
"""


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def begin(registry: CollectorRegistry) -> AsyncIterator[Begin]:
    children: list[ScriptedChild] = []
    metrics = NodeMetrics(registry)

    async def start(script: str) -> HostedSession:
        children.append(ScriptedChild(script))
        return await children[-1].begin(metrics=metrics)

    yield start
    for child in children:
        await child.close()


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than 4 s of silence."""
    monkeypatch.setattr("service.workers.process.STALLED_SECONDS", 2.0)


async def first_event(session: HostedSession) -> None:
    """Until it has reported one: it lives, and does what its script says."""
    async with asyncio.timeout(HANG_S):
        await anext(session.observations())


async def test_what_was_said_before_the_end_comes_before_the_end(begin: Begin) -> None:
    session = await begin("""
        for number in (1, 2, 3):
            tell(number=number, event=got(message_id=str(number)))
        tell(ended=frames_pb2.Ended(cause="STREAM_REPLACED"))
        os._exit(3)
    """)
    heard, ended = await all_of(session)
    assert [observed.number for observed in heard] == [1, 2, 3]
    assert ended.cause is Cause.STREAM_REPLACED


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("os._exit(7)", "exited with status 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("os.abort()", "killed by SIGABRT (a fault in the Go library, or an abort); Fatal Python error: Aborted"),
        ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
        ("raise RuntimeError('what happened')", "exited with status 1; RuntimeError: what happened"),
        ("os.write(2, b'fatal error: concurrent map writes\\n\\nx'); os.abort()", "concurrent map writes"),
    ],
)
async def test_a_death_that_nobody_asked_for_is_told_in_words(begin: Begin, script: str, words: str) -> None:
    _, ended = await all_of(await begin(script))
    assert ended.cause is Cause.PROCESS_DIED
    assert words in ended.detail


async def test_a_process_that_says_it_ends_and_stays_is_killed(begin: Begin) -> None:
    session = await begin("""
        tell(ended=frames_pb2.Ended(cause="LOGGED_OUT_ON_PHONE"))
        while True:
            tell(progress=frames_pb2.Progress())
            time.sleep(0.2)
    """)
    _, ended = await all_of(session)
    assert ended.cause is Cause.LOGGED_OUT_ON_PHONE
    assert session.process._exit.exited


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("node.close()", "it closed its socket and was killed"),
        (
            "node.sendall(bytes([255]) * 100)",
            "a frame could not be decoded: a message of 4294967295 bytes was announced, more than 16777216",
        ),
    ],
)
async def test_a_process_that_cannot_be_heard_any_more_and_stays_is_killed(
    begin: Begin, script: str, words: str
) -> None:
    _, ended = await all_of(await begin(f"{script}; time.sleep(60)"))
    assert (ended.cause, ended.detail) == (Cause.PROCESS_DIED, words)


@pytest.mark.parametrize(
    "meanwhile",
    [
        "time.sleep(60)",
        # It still logs, and says nothing of its progress: what it is for does not go on.
        "while True: tell(log_line=frames_pb2.LogLine(message='busy')); time.sleep(0.1)",
        "import ctypes; ctypes.PyDLL(None).sleep(60)",
    ],
)
async def test_a_stuck_process_is_killed_after_it_has_said_where_it_is(
    begin: Begin, caplog: pytest.LogCaptureFixture, impatience: None, meanwhile: str
) -> None:
    session = await begin(f"""
        def where_it_is_stuck():
            {meanwhile}
        where_it_is_stuck()
    """)
    _, ended = await all_of(session)
    assert ended.cause is Cause.PROCESS_STALLED
    stacks = next(record for record in caplog.records if "where_it_is_stuck" in record.getMessage())
    assert vars(stacks)["session_id"] == "one"


async def test_a_stopped_process_is_killed_though_it_could_be_continued(
    begin: Begin, caplog: pytest.LogCaptureFixture, impatience: None
) -> None:
    caplog.set_level(logging.INFO, "service.workers")
    session = await begin("""
        tell(number=1, event=got())
        while True:
            tell(progress=frames_pb2.Progress())
            time.sleep(0.1)
    """)
    await first_event(session)
    os.kill(session.pid, signal.SIGSTOP)
    _, ended = await all_of(session)
    assert ended.cause is Cause.PROCESS_STALLED
    assert "it is stopped by a signal" in caplog.text
    assert "killed by SIGKILL" in caplog.text


async def test_time_in_which_the_node_was_held_up_says_nothing_of_the_process(begin: Begin) -> None:
    session = await begin("""
        tell(number=1, event=got())
        while True:
            tell(progress=frames_pb2.Progress())
            time.sleep(0.1)
    """)
    await first_event(session)
    # As when the whole machine stands still: neither runs, and this one is the first to look again.
    os.kill(session.pid, signal.SIGSTOP)
    time.sleep(STALLED_SECONDS + 1)  # noqa: ASYNC251 - the loop is to stand still
    asyncio.get_running_loop().call_later(0.5, os.kill, session.pid, signal.SIGCONT)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(session.process.wait_closed(), 2)
    assert not session.process._exit.exited


async def test_stderr_that_fills_up_is_logged_and_emptied_so_that_last_words_find_room(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    session = await begin("""
        os.write(2, b"chatter\\n" * 20_000 + b"the end of it\\n")
        tell(progress=frames_pb2.Progress())
        while os.lseek(2, 0, os.SEEK_CUR):
            time.sleep(0.01)
        os.write(2, b"fatal error: concurrent map writes\\n")
        os.abort()
    """)
    _, ended = await all_of(session)
    assert "concurrent map writes" in ended.detail
    logged = next(record.getMessage() for record in caplog.records if "wrote on stderr" in record.getMessage())
    assert logged.endswith("the end of it")
    assert len(logged) < 10_000


async def test_what_is_of_the_moment_is_left_out_while_nobody_takes_what_it_says(begin: Begin) -> None:
    session = await begin("tell(event=got())\n" + TELL_MESSAGES.format(count=600) + "tell(event=got())\nos._exit(0)")
    await asyncio.wait_for(session.process._exit.wait(), 10)
    heard, _ = await all_of(session)
    assert [observed.number for observed in heard] == list(range(601))


async def test_what_a_dead_process_left_in_its_socket_is_heard_however_late(begin: Begin) -> None:
    session = await begin(TELL_MESSAGES.format(count=1040) + "os._exit(0)")
    await asyncio.wait_for(session.process._exit.wait(), 10)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(session.process.wait_closed(), 2)
    heard, ended = await all_of(session)
    assert [observed.number for observed in heard] == list(range(1, 1041))
    assert ended.cause is Cause.PROCESS_DIED


@pytest.mark.parametrize(
    ("frame", "kind", "longest"),
    [
        ("log_line=frames_pb2.LogLine(message='://a' * 314_573)", "log_line", 65_536),
        ("code_shown=frames_pb2.CodeShown(text='x' * 65_536)", "code_shown", 65_536),
        ("reply=frames_pb2.Reply(failure=frames_pb2.CallFailure(message='x' * 4_194_304))", "reply", 4_194_304),
        ("progress=frames_pb2.Progress(), origin=bytes(65_536)", "progress", 65_536),
    ],
)
async def test_only_an_event_or_a_reply_may_be_long(begin: Begin, frame: str, kind: str, longest: int) -> None:
    session = await begin(f"""
        tell(number=1, event=got(raw=bytes(3_000_000)))
        tell({frame})
        time.sleep(60)
    """)
    heard, ended = await all_of(session)
    assert [observed.number for observed in heard] == [1]
    assert ended.cause is Cause.PROCESS_DIED
    assert ended.detail.startswith(f"a frame could not be decoded: a frame of kind {kind} has ")
    assert ended.detail.endswith(f" bytes, more than {longest}")


async def test_long_replies_come_whole_and_are_not_counted_once_they_are_taken(begin: Begin) -> None:
    session = await begin("""
        while (received := command()) is not None:
            reply = frames_pb2.Reply(call_id=received.call.call_id)
            reply.result.Pack(message_pb2.Text(body="x" * 3_000_000))
            tell(reply=reply)
    """)
    results = await asyncio.gather(*(session.call(text_content("hi"), 15) for _ in range(4)))
    assert results == [payload(message_pb2.Text(body="x" * 3_000_000))] * 4
    # If the bytes of a reply that was taken still counted, an event of this size would pause the reading.
    event = event_pb2.Event(type=event_pb2.Event.TYPE_MESSAGE_RECEIVED)
    session.on_frame(frames_pb2.Frame(number=1, event=event), HIGH_BYTES - 10_000)
    assert not session.process.channel.is_paused
    await session.kill()


async def test_a_reply_counts_until_its_call_has_taken_it(begin: Begin) -> None:
    session = await begin("while command() is not None: pass")
    call = asyncio.create_task(session.call(text_content("hi"), 15))
    await asyncio.sleep(0)
    session.on_frame(frames_pb2.Frame(reply=frames_pb2.Reply(call_id=1)), HIGH_BYTES + 1)
    was_paused = session.process.channel.is_paused
    await call
    assert (was_paused, session.process.channel.is_paused) == (True, False)
    await session.kill()


async def test_a_log_line_of_any_length_comes_cut(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    """The first from a process as it should be, the second from one that does not cut."""
    caplog.set_level(logging.INFO, "service.session")
    session = await begin("""
        from service.worker.process.log_forwarder import LogForwarder

        lines = LogForwarder(lambda frame: node.sendall(framing.frame(frame)) is None)
        lines.write("ERROR", "whatsmeow.Client", "cannot connect " + "://a" * 314_573)
        tell(log_line=frames_pb2.LogLine(level="error", logger="x" * 3_000, message="cannot connect " * 4_000))
        tell(ended=frames_pb2.Ended(cause="CLIENT_ERROR", detail="no " * 20_000))
        os._exit(3)
    """)
    _, ended = await all_of(session)
    first, second = (record.getMessage() for record in caplog.records if record.name == "service.session")
    assert first == f"whatsmeow.Client: cannot connect{CUT}"
    assert second.startswith(f"{CUT}: cannot connect cannot connect ")
    assert second.endswith(f" cannot{CUT}")
    assert len(second) < LONGEST_TEXT_CHARACTERS + 20
    assert ended.detail.endswith(f"no{CUT}")
    assert len(ended.detail) <= LONGEST_TEXT_CHARACTERS


async def test_what_waits_in_the_node_is_bounded_and_nobody_is_blamed_for_what_is_not_read(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await begin("""
        for number in range(1, 33):
            tell(number=number, event=got(raw=bytes(1_000_000)))
            os.pwrite(2, str(number).encode(), 0)
        tell(ended=frames_pb2.Ended(cause="STREAM_REPLACED"))
        os._exit(3)
    """)
    await eventually(lambda: int(read_stderr(session.process._child.stderr) or 0) >= 4, "four events")
    monkeypatch.setattr("service.workers.process.STALLED_SECONDS", 0.5)
    await asyncio.sleep(2)
    # What it has written beyond these is in the socket.
    assert int(read_stderr(session.process._child.stderr)) < 8
    assert not session.process._exit.exited
    heard, ended = await all_of(session)
    assert [observed.number for observed in heard] == list(range(1, 33))
    assert ended.cause is Cause.STREAM_REPLACED


async def test_the_last_word_of_a_dead_process_is_heard_though_nothing_was_read_any_more(begin: Begin) -> None:
    session = await begin("""
        for number in range(1, 6):
            tell(number=number, event=got(raw=bytes(1_000_000)))
        tell(number=6, event=got())
        tell(ended=frames_pb2.Ended(cause="STREAM_REPLACED"))
        os._exit(3)
    """)
    await asyncio.wait_for(session.process.wait_closed(), 20)
    heard, ended = await all_of(session)
    assert [observed.number for observed in heard] == list(range(1, 7))
    assert ended.cause is Cause.STREAM_REPLACED


@pytest.mark.parametrize("is_written", ["permit", "confirm", "stop"])
async def test_what_it_said_last_is_heard_though_something_is_written_to_it_when_it_is_dead(
    begin: Begin, is_written: str
) -> None:
    session = await begin(TELL_MESSAGES.format(count=40) + "tell(ended=frames_pb2.Ended(cause='STREAM_REPLACED'))")
    # The loop is busy with other sessions meanwhile, and has not read it when it writes.
    wait_for_death(session)
    match is_written:
        case "permit":
            session.permit(time.monotonic() + 90)
        case "confirm":
            session.confirm(1)
        case "stop":
            await session.stop(5)
    heard, ended = await all_of(session)
    assert [observed.number for observed in heard] == list(range(1, 41))
    assert ended.cause is Cause.STREAM_REPLACED


def wait_for_death(session: HostedSession) -> None:
    """Without the loop."""
    assert select.select([session.process._child.pidfd], [], [], 10)[0]


async def test_a_process_of_which_nobody_takes_anything_any_more_is_over_when_it_is_dead(begin: Begin) -> None:
    session = await begin(TELL_MESSAGES.format(count=1700) + "time.sleep(60)")
    await eventually(lambda: session.process.channel.is_paused, "more than the node takes")
    await session.kill()
    await asyncio.wait_for(session.process.wait_closed(), 5)


async def test_stopping_lets_it_say_the_rest(begin: Begin) -> None:
    session = await begin("""
        assert command().WhichOneof("command") == "stop"
        tell(disconnected=frames_pb2.Disconnected())
        tell(ended=frames_pb2.Ended(cause="STOPPED"))
        os._exit(0)
    """)
    await session.stop(10)
    heard, ended = await all_of(session)
    assert [observed.observation for observed in heard] == [Disconnected()]
    assert ended.cause is Cause.STOPPED


async def test_stopping_one_that_does_not_listen_kills_it_after_the_grace(begin: Begin) -> None:
    session = await begin("time.sleep(60)")
    began = time.monotonic()
    await session.stop(0.5)
    assert session.process._exit.exited
    assert 0.5 <= time.monotonic() - began < 3
    _, ended = await all_of(session)
    assert (ended.cause, ended.detail) == (Cause.STOPPED, "asked to stop, and killed after 0.5 seconds")


async def test_killing_returns_when_it_is_dead(begin: Begin) -> None:
    session = await begin("time.sleep(60)")
    os.kill(session.pid, signal.SIGSTOP)
    await session.kill()
    assert session.process._exit.exited
    _, ended = await all_of(session)
    assert (ended.cause, ended.detail) == (Cause.STOPPED, "killed")
    await session.kill()
    await session.stop(1)


async def test_calls_are_answered_refused_or_given_up(begin: Begin) -> None:
    session = await begin(OBEY)
    replies = await asyncio.gather(*(session.send(f"{n}@lid", text_content("hi"), 10) for n in range(50)))
    assert [reply.message_id for reply in replies] == [f"{n}@lid" for n in range(50)]
    with pytest.raises(CallFailed, match="refused"):
        await session.send("x@lid", text_content("refuse"), 10)
    with pytest.raises(CallFailed, match="did not answer") as failure:
        await session.send("x@lid", text_content("never"), 0.2)
    assert not failure.value.certain


async def test_a_call_of_any_kind_goes_through_unread(begin: Begin) -> None:
    session, request = await begin(OBEY), payload(duration_pb2.Duration(seconds=3))
    assert await session.call(request, 10) == request


async def test_a_call_in_flight_when_it_dies_may_have_been_done(begin: Begin) -> None:
    session = await begin('assert command().WhichOneof("command") == "call"; os._exit(0)')
    with pytest.raises(CallFailed, match="ended before it answered") as failure:
        await session.send("x@lid", text_content("hi"), 10)
    assert not failure.value.certain
    with pytest.raises(CallFailed) as failure:
        await session.send("x@lid", text_content("hi"), 10)
    assert failure.value.certain


async def test_of_permits_that_wait_only_the_last_is_sent(begin: Begin) -> None:
    session = await begin("""
        go_on = time.monotonic() + 2
        while time.monotonic() < go_on:
            tell(progress=frames_pb2.Progress())
            time.sleep(0.1)
        last = 0
        permits = 0
        while (received := command()) is not None:
            if received.WhichOneof("command") == "permit":
                permits += 1
                last = received.permit.deadline_ns
            elif received.WhichOneof("command") == "confirm" and received.confirm.number == 7:
                tell(number=permits, event=got(message_id=str(last)))
    """)
    # Fill the socket and asyncio's buffer with something that is not superseded.
    sends = [asyncio.create_task(session.send("x@lid", text_content("x" * 100_000), 30)) for _ in range(10)]
    await eventually(lambda: not session.process.channel.accepts_commands, every=0)
    began = time.monotonic()
    until = time.monotonic() + 100
    for _ in range(10_000):
        until += 0.001
        session.permit(until)
        session.permit(until - 50)
    session.confirm(6)
    session.confirm(7)
    assert time.monotonic() - began < 5
    (observed,) = await anext(session.observations())
    assert isinstance(observed.observation, InboundEvent)
    told = event_pb2.Event.FromString(observed.observation.encoded)
    assert told.message_received.message_id == str(int(until * 1e9))
    assert observed.number == 1
    await session.kill()
    for send in sends:
        with pytest.raises(CallFailed):
            await send


async def test_more_calls_than_the_process_takes_wait_for_a_place(begin: Begin) -> None:
    session = await begin("""
        import select

        held = []
        while (received := command()) is not None:
            held.append(received.call.call_id)
            if len(held) == framing.MOST_CALLS:
                is_full = not select.select([node], [], [], 0.2)[0]
                too_many = frames_pb2.CallFailure(message="too many")
                outcome = {"result": pack(calls_pb2.SendResult())} if is_full else {"failure": too_many}
                for call_id in held:
                    tell(reply=frames_pb2.Reply(call_id=call_id, **outcome))
                held.clear()
    """)
    calls = (session.send("a@s.whatsapp.net", text_content("hello"), 10) for _ in range(3 * framing.MOST_CALLS))
    await asyncio.gather(*calls)


async def test_a_call_that_never_gets_a_place_certainly_failed(begin: Begin) -> None:
    session = await begin("while command() is not None: pass")
    hung = [
        asyncio.create_task(session.send("a@s.whatsapp.net", text_content("x"), 5)) for _ in range(framing.MOST_CALLS)
    ]
    await asyncio.sleep(0.1)
    with pytest.raises(CallFailed) as refused:
        await session.send("a@s.whatsapp.net", text_content("one too many"), 0.2)
    assert refused.value.certain
    await session.kill()
    for failure in await asyncio.gather(*hung, return_exceptions=True):
        assert isinstance(failure, CallFailed)
        assert not failure.certain


@pytest.mark.parametrize("end", ["kill", "stop", "by itself"])
@pytest.mark.parametrize("connects", [True, False])
async def test_a_start_and_an_end_are_counted_once(
    begin: Begin, registry: CollectorRegistry, connects: bool, end: str
) -> None:
    connected = "tell(connected=frames_pb2.Connected(jid='1@s.whatsapp.net'))" if connects else ""
    leave = "os._exit(7)" if end == "by itself" else ""
    session = await begin(f"for _ in range(2): {connected or 'pass'}\n{leave}\n{OBEY}")
    if end == "kill":
        await eventually(lambda: not (connects and session._lane is not None), timeout=20)
        await session.kill()
    elif end == "stop":
        await session.stop(10)
    _, ended = await all_of(session)
    cause = "KILLED" if end == "kill" else ended.cause.value
    outcomes = {
        (sample.labels["lane"], sample.labels["outcome"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "zap_session_starts_total"
    }
    assert outcomes == {("CLAIMED", "CONNECTED" if connects else cause): 1}
    assert registry.get_sample_value("zap_session_process_ends_total", {"cause": cause}) == 1
