"""The real zygote: it forks, it reaps, it leaks nothing, and it can be killed."""

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from service.domain.disconnect_policy import Cause
from service.domain.errors import Unavailable
from service.domain.observations import Ended
from service.ports.processes import StartOrder
from service.wire import framing
from service.workers import dsn
from service.workers.hosted_session import HostedSession
from service.workers.pool import Pool, PoolSettings
from service.workers.zygote import ZygoteClient
from service.workers.zygote_process import SILENT_SECONDS, Child
from tests.eventually import eventually
from tests.integration.session_children import all_of
from zap.worker.v1 import frames_pb2

ROOT = Path(__file__).resolve().parents[2]
NODE_GONE = 4
#: Nothing listens there: a client that is aimed at it keeps its process busy with failing, or waiting.
NO_DATABASE = "postgresql://zap@127.0.0.1:9/none"


@pytest.fixture
async def zygote() -> AsyncIterator[ZygoteClient]:
    zygote = ZygoteClient()
    await zygote.start()
    yield zygote
    await zygote.close()


async def dead(child: Child) -> None:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(child.pidfd, _settle, readable)
    try:
        await asyncio.wait_for(readable, 10)
    finally:
        loop.remove_reader(child.pidfd)


def _settle(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


def descriptors(pid: int) -> list[str]:
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            links.append(str(entry.readlink()))
    return sorted(links)


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def test_a_child_whose_socket_is_closed_ends_and_its_status_comes_back(zygote: ZygoteClient) -> None:
    child = await zygote.fork()
    assert alive(child.pid)
    assert psutil.Process(child.pid).ppid() == zygote.pid
    child.connection.close()
    assert await asyncio.wait_for(child.exit_status, 10) == NODE_GONE
    await dead(child)
    child.close()


async def test_a_child_has_nothing_open_but_its_own(zygote: ZygoteClient) -> None:
    first, second = await zygote.fork(), await zygote.fork()
    assert zygote.pid is not None
    await eventually(lambda: len(descriptors(second.pid)) == 4, "the child to have left the zygote")
    own = descriptors(second.pid)
    assert [link.partition(":")[0] for link in own] == ["/dev/null", "/dev/null", "/memfd", "socket"]
    forking = zygote.pid
    # It closes its copies once it has sent them.
    await eventually(lambda: not set(own) & set(descriptors(forking)) - {"/dev/null"}, "the zygote to let go")
    assert not [link for link in own if link.startswith("socket") and link in descriptors(first.pid)]
    # So the first one notices the end of its socket though the second one lives on.
    first.connection.close()
    assert await asyncio.wait_for(first.exit_status, 10) == NODE_GONE
    assert alive(second.pid)
    for child in (first, second):
        child.close()


async def test_a_child_is_in_the_zygote_s_group_until_it_starts_and_then_in_a_session_of_its_own(
    zygote: ZygoteClient,
) -> None:
    child = await zygote.fork()
    assert os.getpgid(child.pid) == zygote.pid
    # With a database that is not there: without any, the library makes a file of its own where it runs.
    address = dsn.for_session(NO_DATABASE, "one", 1)
    start = frames_pb2.Start(session_id="one", database_url=address.url, database=address.database)
    start.permit.deadline_ns = time.monotonic_ns() + 10**10
    child.connection.send(framing.frame(frames_pb2.Command(start=start)))
    await eventually(lambda: os.getsid(child.pid) == os.getpgid(child.pid) == child.pid, "a session of its own")
    child.close()


async def test_two_hundred_forks_leave_nothing_behind(zygote: ZygoteClient) -> None:
    assert zygote.pid is not None
    node = psutil.Process()
    first = await zygote.fork()
    first.connection.close()
    await first.exit_status
    first.close()
    before = (node.num_fds(), node.num_threads(), psutil.Process(zygote.pid).num_fds())
    for _ in range(10):
        children = await asyncio.gather(*(zygote.fork() for _ in range(20)))
        assert len({child.pid for child in children}) == 20
        for child in children:
            child.connection.close()
        assert await asyncio.gather(*(child.exit_status for child in children)) == [NODE_GONE] * 20
        for child in children:
            child.close()
    after = (node.num_fds(), node.num_threads(), psutil.Process(zygote.pid).num_fds())
    # What other tests have left in this process may go meanwhile.
    assert all(now <= then for now, then in zip(after, before, strict=True)), (before, after)
    assert psutil.Process(zygote.pid).children() == []
    assert psutil.Process(zygote.pid).num_threads() == 1


async def test_a_fork_that_nobody_waits_for_any_more_leaves_nothing_behind(zygote: ZygoteClient) -> None:
    assert zygote.pid is not None
    node = psutil.Process()
    before = node.num_fds()
    for delay in range(20):
        forking = asyncio.create_task(zygote.fork())
        for _ in range(delay):
            await asyncio.sleep(0)
        forking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await forking).close()
    # Answers that are under way still arrive, and are closed.
    await eventually(
        lambda: psutil.Process(zygote.pid).children() == [] and node.num_fds() == before, "all to be closed"
    )


async def test_when_the_zygote_is_killed_its_children_go_on_and_the_next_fork_works(zygote: ZygoteClient) -> None:
    child = await zygote.fork()
    killed = zygote.pid
    assert killed is not None
    began = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    children = await asyncio.gather(*(zygote.fork() for _ in range(5)))
    assert time.monotonic() - began < 20  # 2 s, on a machine that does nothing else
    assert zygote.pid not in {killed, None}
    assert alive(child.pid)
    # Its death is told all the same, by its pidfd; its status is not known to anybody.
    child.connection.close()
    await dead(child)
    assert child.exit_status.cancelled()
    for each in (child, *children):
        each.close()


async def test_a_zygote_whose_death_nobody_has_heard_of_yet_is_asked_once(zygote: ZygoteClient) -> None:
    killed = zygote.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    # Blocks on purpose: it is dead, and the loop has had no turn to notice.
    time.sleep(0.2)  # noqa: ASYNC251
    assert zygote.pid == killed
    child = await zygote.fork()
    assert zygote.pid not in {killed, None}
    child.close()


async def test_a_zygote_that_died_is_replaced_before_anybody_asks(zygote: ZygoteClient) -> None:
    killed = zygote.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: zygote.pid not in {killed, None}, "another zygote")


async def test_a_zygote_that_does_not_start_says_why() -> None:
    zygote = ZygoteClient(command=(sys.executable, "-c", "raise RuntimeError('no such thing')"))
    with pytest.raises(Unavailable, match="no such thing"):
        await zygote.fork()
    await zygote.close()


async def test_a_zygote_that_cannot_be_executed_says_why() -> None:
    zygote = ZygoteClient(command=("/nonexistent/python",))
    with pytest.raises(Unavailable, match="nonexistent"):
        await zygote.start()
    await zygote.close()


@pytest.mark.parametrize("room", range(9))
async def test_a_zygote_for_which_there_are_too_few_descriptors_leaves_none_behind(room: int) -> None:
    zygote = ZygoteClient(command=(sys.executable, "-c", "raise RuntimeError('executed')"))
    node = psutil.Process()
    before = node.num_fds()
    with no_more_descriptors_than(room), pytest.raises(Unavailable, match=r"Too many open files|executed"):
        await zygote.fork()
    await eventually(lambda: node.num_fds() == before, "all that was opened to be closed")
    assert not [child for child in node.children() if child.status() == psutil.STATUS_ZOMBIE]
    await zygote.close()


async def test_a_zygote_that_dies_where_no_thread_is_to_be_had_is_followed_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own zombie counts for the limit of processes and threads."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    zygote = ZygoteClient(command=(sys.executable, "-c", "raise RuntimeError('no such thing')"))
    for _ in range(2):
        with pytest.raises(Unavailable, match="no such thing"):
            await asyncio.wait_for(zygote.fork(), 20)
    await zygote.close()


async def test_after_the_end_nothing_is_forked(zygote: ZygoteClient) -> None:
    pid = zygote.pid
    assert pid is not None
    await zygote.close()
    assert not alive(pid)
    with pytest.raises(Unavailable):
        await zygote.fork()


async def test_a_frozen_zygote_is_replaced_and_its_children_go_on(zygote: ZygoteClient) -> None:
    child = await zygote.fork()
    frozen = zygote.pid
    assert frozen is not None
    os.kill(frozen, signal.SIGSTOP)
    began = time.monotonic()
    others = await asyncio.gather(*(zygote.fork() for _ in range(3)))
    # 2 s of silence and the start of another, on a machine that does nothing else.
    assert time.monotonic() - began < 20
    assert zygote.pid not in {frozen, None}
    assert not alive(frozen)
    assert alive(child.pid)
    child.connection.close()
    await dead(child)
    for each in (child, *others):
        each.close()


async def test_a_frozen_zygote_is_replaced_before_anybody_asks(zygote: ZygoteClient) -> None:
    frozen = zygote.pid
    assert frozen is not None
    os.kill(frozen, signal.SIGSTOP)
    await eventually(lambda: zygote.pid not in {frozen, None}, "another zygote", 15)


async def test_a_zygote_that_is_slow_is_not_taken_for_a_frozen_one() -> None:
    script = """
import os, sys, time
from service.worker import __main__ as zygote
fork = os.fork
os.fork = lambda: time.sleep(0.1) or fork()
sys.exit(zygote.main())
"""
    slow = ZygoteClient(command=(sys.executable, "-c", script))
    await slow.start()
    pid = slow.pid
    children = await asyncio.gather(*(slow.fork() for _ in range(int(SILENT_SECONDS / 0.1) + 10)))
    assert slow.pid == pid
    for child in children:
        child.close()
    await slow.close()


async def test_time_in_which_the_node_was_held_up_says_nothing_of_the_zygote(zygote: ZygoteClient) -> None:
    pid = zygote.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    time.sleep(SILENT_SECONDS + 1)  # noqa: ASYNC251 - the loop is to stand still
    asyncio.get_running_loop().call_later(0.3, os.kill, pid, signal.SIGCONT)
    (await zygote.fork()).close()
    assert zygote.pid == pid


async def test_signals_to_all_processes_of_a_service_are_not_for_these(zygote: ZygoteClient) -> None:
    pid = zygote.pid
    assert pid is not None
    child = await zygote.fork()
    await eventually(lambda: len(descriptors(child.pid)) == 4, "the child to have left the zygote")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
        os.kill(child.pid, number)
    (await zygote.fork()).close()
    assert zygote.pid == pid
    child.connection.close()
    assert await asyncio.wait_for(child.exit_status, 10) == NODE_GONE
    child.close()


@pytest.mark.parametrize("room", [0, 1, 2])
async def test_a_node_without_room_for_descriptors_refuses_and_keeps_its_zygote(
    zygote: ZygoteClient, room: int
) -> None:
    pid, node = zygote.pid, psutil.Process()
    (await zygote.fork()).close()
    before = node.num_fds()
    with no_more_descriptors_than(room), pytest.raises(Unavailable, match="no session process can be made now"):
        await zygote.fork()
    await eventually(lambda: node.num_fds() == before, "all that was given to be closed")
    (await zygote.fork()).close()
    assert zygote.pid == pid


@contextlib.contextmanager
def no_more_descriptors_than(room: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, hard))
    fillers: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        for _ in range(room):
            os.close(fillers.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in fillers:
            os.close(descriptor)


# --- with the library loaded


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(PoolSettings(NO_DATABASE), {**os.environ, "DATABASE_URL": "postgresql://secret@host/db"})
    await pool.open()
    yield pool
    await pool.close()


def order(permit: float, session_id: str = "one") -> StartOrder:
    return StartOrder(session_id, 3, "", "", time.monotonic() + permit)


async def test_a_process_without_a_permit_refuses_to_begin(pool: Pool) -> None:
    _, ended = await all_of(await pool.start(order(-1)))
    assert ended.cause is Cause.PROCESS_DIED
    assert "permit" in ended.detail


async def test_a_database_that_is_not_there_is_waited_for_until_the_permit_ends(pool: Pool) -> None:
    _, ended = await all_of(await pool.start(order(2)))
    assert ended.cause is Cause.PROCESS_DIED
    assert "SIGALRM" in ended.detail


async def test_ten_at_once_all_end_and_all_are_forgotten() -> None:
    failing = Pool(PoolSettings(NO_DATABASE, preload="nowhere:to_be_found"))
    await failing.open()
    processes = await asyncio.gather(*(failing.start(order(30, f"s{n}")) for n in range(10)))
    ends = await asyncio.gather(*(all_of(process, 60) for process in processes))
    assert {ended.cause for _, ended in ends} == {Cause.CLIENT_ERROR}
    await eventually(lambda: not failing._processes, "all to be forgotten")
    assert failing.overdue == ()
    await failing.close()


async def test_the_pool_closes_over_what_still_runs(pool: Pool, tmp_path: Path) -> None:
    # A database that accepts and never answers: the library waits in its first query.
    async with silent_server() as port:
        silent = Pool(PoolSettings(f"postgresql://zap@127.0.0.1:{port}/none"))
        process = await silent.start(order(60))
        await eventually(lambda: process.process._showed_life, "a sign of life")
        await silent.close()
        assert not alive(process.pid)
        heard = [observed async for batch in process.observations() for observed in batch]
        assert isinstance(heard[-1].observation, Ended)


async def test_operators_see_which_session_a_process_is_and_no_secret(pool: Pool) -> None:
    async with silent_server() as port:
        silent = Pool(PoolSettings(f"postgresql://zap:hunter2@127.0.0.1:{port}/none"))
        process = await silent.start(order(60, "shop-berlin"))
        await eventually(lambda: process.process._showed_life, "a sign of life")
        seen = psutil.Process(process.pid)
        assert " ".join(seen.cmdline()).startswith("zap-session shop-berlin epoch 3")
        assert "hunter2" not in str(seen.environ()) + str(seen.cmdline())
        assert Path(f"/proc/{process.pid}/comm").read_text().strip() == "shop-berlin"
        await silent.close()


async def test_a_go_panic_is_told_by_its_words(pool: Pool) -> None:
    async with silent_server() as port:
        silent = Pool(PoolSettings(f"postgresql://zap@127.0.0.1:{port}/none"))
        process = await silent.start(order(60))
        await eventually(lambda: process.process._showed_life, "a sign of life")
        os.kill(process.pid, signal.SIGABRT)
        _, ended = await all_of(process)
        assert ended.cause is Cause.PROCESS_DIED
        assert "SIGABRT" in ended.detail
        await silent.close()


async def test_a_process_whose_node_is_gone_ends(pool: Pool) -> None:
    async with silent_server() as port:
        silent = Pool(PoolSettings(f"postgresql://zap@127.0.0.1:{port}/none"))
        process: HostedSession = await silent.start(order(60))
        await eventually(lambda: process.process._showed_life, "a sign of life")
        process.process.channel.close()
        _, ended = await all_of(process)
        assert (ended.cause, "status 4" in ended.detail) == (Cause.PROCESS_DIED, True)
        await silent.close()


@contextlib.asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Accepts connections and says nothing."""

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    connections: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in connections:
            writer.transport.abort()


async def test_frames_of_the_wire_are_what_the_child_reads(zygote: ZygoteClient) -> None:
    """A first command that is not to start is refused, and the child does not linger."""
    child = await zygote.fork()
    child.connection.send(framing.frame(frames_pb2.Command(stop=frames_pb2.Stop())))
    assert await asyncio.wait_for(child.exit_status, 10) != 0
    child.close()
