"""Two sessions in one process, on the node's side. A script stands for the process."""

import asyncio
import textwrap
import time
from collections.abc import AsyncIterator

import pytest

from service.domain.disconnect_policy import Cause
from service.domain.media import MediaKind
from service.domain.observations import Disconnected, Ended, Observed
from service.media.sealed_file import SealedFile
from service.ports.processes import CallFailed
from service.workers.hosted_session import HostedSession
from service.workers.process import Process
from service.workers.waiting import HIGH_BYTES
from tests.contents import text_content
from tests.integration.session_children import ScriptedChild, all_of
from zap.worker.v1 import frames_pb2

TWO_SESSIONS = """
assert command().start.session_id == "two"

writing = threading.Lock()

def say(session_id, **body):
    with writing:
        node.sendall(framing.frame(frames_pb2.Frame(session_id=session_id, **body)))

def keep_alive():
    while True:
        say("", progress=frames_pb2.Progress())
        time.sleep(0.2)

threading.Thread(target=keep_alive, daemon=True).start()
"""
EXECUTE_COMMANDS = """
for received in iter(command, None):
    sid, kind = received.session_id, received.WhichOneof("command")
    if kind == "confirm":
        say(sid, number=received.confirm.number + 1, event=got(message_id=sid))
    elif kind == "call":
        result = pack(calls_pb2.SendResult(message_id=sid))
        say(sid, reply=frames_pb2.Reply(call_id=received.call.call_id, result=result))
    elif kind == "permit":
        say("one", number=received.permit.deadline_ns, event=got())
"""


class Two:
    """A process with the sessions "one" and "two"."""

    def __init__(self) -> None:
        self._children: list[ScriptedChild] = []

    async def begin(self, script: str = "") -> tuple[Process, HostedSession, HostedSession]:
        """Start it; it runs the script, then executes commands."""
        self._children.append(child := ScriptedChild(TWO_SESSIONS + textwrap.dedent(script) + EXECUTE_COMMANDS))
        process = Process(child.child, {"session_id": "one"})
        one, two = (HostedSession(process, name, 1) for name in ("one", "two"))
        await process.begin(one, frames_pb2.Start(session_id="one"))
        later = frames_pb2.Permit(deadline_ns=int((time.monotonic() + 1_000) * 1e9))
        process.add(two, frames_pb2.Start(session_id="two", permit=later))
        return process, one, two

    async def close(self) -> None:
        for child in self._children:
            await child.close()


@pytest.fixture
async def processes() -> AsyncIterator[Two]:
    two = Two()
    yield two
    await two.close()


async def first_of(session: HostedSession) -> Observed:
    async with asyncio.timeout(15):
        async for batch in session.observations():
            return batch[0]
    raise AssertionError("it has ended without an observation")


async def test_frames_and_commits_are_each_session_s_own(processes: Two) -> None:
    process, one, two = await processes.begin()
    two.confirm(41)
    assert (await first_of(two)).number == 42
    one.confirm(6)
    assert (await first_of(one)).number == 7
    await process.kill()


async def test_the_calls_of_two_sessions_do_not_mix(processes: Two) -> None:
    process, one, two = await processes.begin()
    replies = await asyncio.gather(*(session.send("x@lid", text_content("hi"), 15) for session in (one, two, one)))
    assert [reply.message_id for reply in replies] == ["one", "two", "one"]
    await process.kill()


UPLOADS = """
import hashlib, mmap

def store(received):
    request = calls_pb2.Upload.FromString(received.call.request.value)
    with mmap.mmap(attachments[-1].fileno(), request.size, access=mmap.ACCESS_COPY) as mapped:
        return calls_pb2.UploadResult(direct_path="/v/1", sha256=hashlib.sha256(mapped).digest(), size=request.size)

for received in iter(command, None):
    result = store(received) if received.call.request.TypeName() == "zap.worker.v1.Upload" else calls_pb2.SendResult()
    say(received.session_id, reply=frames_pb2.Reply(call_id=received.call.call_id, result=pack(result)))
"""


async def test_files_go_to_the_process_among_other_calls(processes: Two) -> None:
    process, one, two = await processes.begin(UPLOADS)

    async def upload(number: int) -> bool:
        data = bytes([number]) * 100_000
        with SealedFile() as file:
            file.write(data)
            sha256 = file.seal()
            stored = await (one, two)[number % 2].upload(MediaKind.IMAGE, file.descriptor, len(data), 15)
        return (stored.kind, stored.direct_path, stored.sha256) == (MediaKind.IMAGE, "/v/1", sha256)

    # A large command leaves bytes in the buffer of the transport, for which files must wait.
    transport = process.channel._transport
    assert transport is not None
    send = asyncio.create_task(one.send("x@lid", text_content("x" * 260_000), 15))
    await asyncio.sleep(0)
    assert transport.get_write_buffer_size() > 0
    uploads = await asyncio.gather(*(upload(number) for number in range(8)))
    await send
    assert uploads == [True] * 8
    await process.kill()
    with pytest.raises(CallFailed) as failure:
        await upload(1)
    assert failure.value.certain


async def test_a_reported_end_is_of_one_session(processes: Two) -> None:
    process, one, two = await processes.begin(
        """
        say("one", ended=frames_pb2.Ended(cause="STREAM_REPLACED"))
        say("one", disconnected=frames_pb2.Disconnected())
        say("two", disconnected=frames_pb2.Disconnected())
    """
    )
    assert (await first_of(two)).observation == Disconnected()
    with pytest.raises(CallFailed) as failure:
        await one.send("x@lid", text_content("hi"), 15)
    assert failure.value.certain
    assert (await two.send("x@lid", text_content("hi"), 15)).message_id == "two"
    # The process is not killed for that one of its sessions has ended.
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.wait_closed(), 3)
    await process.kill()
    heard, ended = await all_of(one)
    assert (heard, ended.cause) == ([], Cause.STREAM_REPLACED)
    assert await all_of(two) == ([], Ended(Cause.STOPPED, "killed"))


@pytest.mark.parametrize("session_id", ["three", "x" * 5_000])
async def test_a_frame_of_an_unknown_session_ends_the_process(processes: Two, session_id: str) -> None:
    process, one, two = await processes.begin(f"say({session_id!r}, disconnected=frames_pb2.Disconnected())")
    for session in (one, two):
        _, ended = await all_of(session)
        assert ended.cause is Cause.PROCESS_DIED
        assert "a frame of a session that is not in this process" in ended.detail
        assert len(ended.detail) < 3_000
    await process.wait_closed()


async def test_an_end_of_the_whole_process_is_that_of_each_session_without_one(processes: Two) -> None:
    _, one, two = await processes.begin("""
        say("one", ended=frames_pb2.Ended(cause="STREAM_REPLACED"))
        say("", ended=frames_pb2.Ended(cause="PROCESS_STALLED", detail="it is stuck"))
        os._exit(3)
    """)
    assert (await all_of(one))[1].cause is Cause.STREAM_REPLACED
    assert (await all_of(two))[1] == Ended(Cause.PROCESS_STALLED, "it is stuck")


async def test_nothing_is_read_while_one_of_two_sessions_has_too_much_waiting(processes: Two) -> None:
    count = 2 * HIGH_BYTES // 1_000_000
    process, one, two = await processes.begin(
        f"""
        for number in range(1, {count} + 1):
            say("one", number=number, event=got(raw=bytes(1_000_000)))
        say("two", disconnected=frames_pb2.Disconnected())
    """
    )
    waiting = asyncio.create_task(first_of(two))
    while not process.channel.is_paused:
        await asyncio.sleep(0.01)
    # What the other one has read changes nothing.
    process.channel.resume_reading("two")
    assert process.channel._transport is not None
    assert not process.channel._transport.is_reading()
    await asyncio.sleep(0.5)
    assert not waiting.done()
    numbers: list[int] = []
    async with asyncio.timeout(15):
        async for batch in one.observations():
            numbers += [observed.number for observed in batch]
            if len(numbers) == count:
                break
    assert numbers == list(range(1, count + 1))
    assert (await waiting).observation == Disconnected()
    await process.kill()


async def test_the_latest_permit_and_each_session_s_latest_confirmation_are_sent(processes: Two) -> None:
    process, one, two = await processes.begin()
    process.channel.pause_writing()
    until = time.monotonic() + 100
    for number in (1, 2):
        one.permit(until + number)
        one.confirm(number)
        two.confirm(10 * number)
    process.channel.resume_writing()
    async with asyncio.timeout(15):
        numbers = []
        async for batch in one.observations():
            numbers += [observed.number for observed in batch]
            if len(numbers) == 2:
                break
    assert numbers == [int((until + 2) * 1e9), 3]
    assert (await first_of(two)).number == 21
    await process.kill()
