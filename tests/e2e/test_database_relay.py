"""Postgres is lost under real sessions: whatsmeow never hears of it, and nothing that people wrote is lost."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from dev import EmbeddedPostgres
from service.domain.disconnect_policy import Cause
from service.domain.observations import CodeShown, Connected, Ended
from service.workers.pool import Pool, PoolSettings, StoreNotPrepared
from simulator.control import SimulatorControl
from simulator.process import PRELOAD, SimulatorProcess
from tests.conftest import migrate
from tests.e2e import faults
from tests.e2e.session_processes import Watched, pair, start
from tests.eventually import eventually
from tests.fakes.postgres_messages import AUTHENTICATED, READY, error, message
from tests.fakes.scripted_postgres import ScriptedPostgres, refuse, say
from tests.tcp_proxy import Line, TcpProxy
from tests.tls_terminator import Authority, TlsTerminator

PHONE, FRIEND = "491700007001", "491700007002"


@pytest.fixture(scope="module")
async def simulator() -> AsyncIterator[SimulatorProcess]:
    async with SimulatorProcess() as running:
        yield running


@pytest.fixture
async def postgres(server_folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """One that may be stopped: in a folder of its own, which remembers its port."""
    async with EmbeddedPostgres(server_folder / "relay", durable=False, die_with_starter=True) as server:
        await migrate(server.url)
        yield server


@asynccontextmanager
async def pool_of(url: str, simulator: SimulatorProcess, preload: str = PRELOAD) -> AsyncIterator[Pool]:
    """Session processes on this database, whose tables are made."""
    pool = Pool(PoolSettings(url, preload=preload), {**os.environ, **simulator.environment()})
    try:
        await pool.open()
        await pool.prepare_store()
        yield pool
    finally:
        await pool.close()


@pytest.fixture
async def pool(simulator: SimulatorProcess, postgres: EmbeddedPostgres) -> AsyncIterator[Pool]:
    async with pool_of(postgres.url, simulator) as pool:
        yield pool


async def stop_fast(server: EmbeddedPostgres) -> None:
    await server.stop()


async def stop_immediately(server: EmbeddedPostgres) -> None:
    os.kill(server.pid, signal.SIGQUIT)
    await server.stop()


async def kill(server: EmbeddedPostgres) -> None:
    """Its backends notice by themselves that it is gone, and end without a word."""
    os.kill(server.pid, signal.SIGKILL)
    await server.stop()


def texts(*processes: Watched) -> list[str]:
    return [message.text for process in processes for message in process.messages]


async def write(control: SimulatorControl, written: list[str], seconds: float) -> None:
    """One message after another."""
    async with asyncio.timeout(seconds + 10):
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            written.append(f"message {len(written)}")
            await control.write(FRIEND, PHONE, written[-1])
            await asyncio.sleep(0.01)


async def all_told(pool: Pool, first: Watched, jid: str, written: list[str]) -> Watched:
    """Wait until every text has been reported, each once; by a second process, which is returned, if the first ends."""
    last = first
    async with asyncio.timeout(30):
        while set(texts(*{first, last})) != set(written):
            if last is first and first.has_ended:
                last = await start(pool, jid=jid, epoch=2)
            await asyncio.sleep(0.05)
    return last


@pytest.mark.parametrize("strike", [stop_fast, stop_immediately, kill])
async def test_no_message_is_lost_when_postgres_stops(
    pool: Pool,
    simulator: SimulatorProcess,
    postgres: EmbeddedPostgres,
    strike: Callable[[EmbeddedPostgres], Awaitable[None]],
) -> None:
    control = simulator.control
    await control.create_phone(FRIEND)
    first, jid = await pair(pool, control, PHONE)
    written: list[str] = []
    writing = asyncio.create_task(write(control, written, 2.0))
    await asyncio.sleep(0.7)
    await strike(postgres)
    await writing
    await postgres.start()
    await all_told(pool, first, jid, written)
    assert len(written) > 20
    if first.has_ended:
        assert (await first.ended()).cause is Cause.DATABASE_LOST


@pytest.mark.parametrize("moment", ["keys are being written", "answer is forgotten"])
async def test_a_silent_database_ends_the_process_and_loses_no_message(
    simulator: SimulatorProcess, postgres: EmbeddedPostgres, moment: str
) -> None:
    """The worst moments: what the library asked is carried out when the process is gone, or was, and it never heard."""
    control = simulator.control
    await control.create_phone(FRIEND)
    async with TcpProxy(postgres.url) as line, pool_of(line.url, simulator, faults.PRELOAD) as pool:
        first, jid = await pair(pool, control, PHONE)
        await control.write(FRIEND, PHONE, "before")
        await first.message()
        faults.provoke(first.process.pid, "impatient")
        if moment == "keys are being written":
            struck = line.fall_silent_at(b"whatsmeow_sessions")
        else:
            struck = line.forget_in_answer_to(b"INSERT INTO whatsmeow_sessions")
        await control.write(FRIEND, PHONE, "in hand")
        await struck.wait()
        await control.write(FRIEND, PHONE, "behind it")
        assert await first.ended() == Ended(Cause.DATABASE_LOST, "Postgres has not answered for 1 s")
        assert texts(first) == ["before"]
        await line.set(Line.OPEN)
        await all_told(pool, first, jid, ["before", "in hand", "behind it"])


async def test_a_session_without_traffic_does_not_notice_a_restart_of_postgres(
    pool: Pool, simulator: SimulatorProcess, postgres: EmbeddedPostgres
) -> None:
    watched, jid = await pair(pool, simulator.control, PHONE)
    await simulator.control.create_phone(FRIEND)
    before = await simulator.control.device(jid)
    await until_idle(postgres.url)
    await postgres.stop()
    await simulator.control.write(FRIEND, PHONE, "while it is away")
    await postgres.start()
    await watched.message(lambda message: message.text == "while it is away")
    assert not watched.has_ended
    assert (await simulator.control.device(jid)).logins == before.logins


async def test_the_end_of_a_backend_at_work_is_a_loss_that_says_why(
    pool: Pool, simulator: SimulatorProcess, postgres: EmbeddedPostgres
) -> None:
    watched, jid = await pair(pool, simulator.control, PHONE)
    await simulator.control.create_phone(FRIEND)
    admin, holder = await asyncpg.connect(postgres.url), await asyncpg.connect(postgres.url)
    async with holder.transaction():
        # Its answer is what the library waits for.
        await holder.execute("LOCK TABLE whatsmeow_event_buffer")
        await simulator.control.write(FRIEND, PHONE, "in hand")
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await eventually(lambda: admin.fetchval(blocked))
        await terminate(postgres.url)
        ended = await watched.ended()
    await holder.close()
    await admin.close()
    assert ended == Ended(Cause.DATABASE_LOST, "FATAL 57P01: terminating connection due to administrator command")
    again = await start(pool, jid=jid, epoch=2)
    await again.message(lambda message: message.text == "in hand")


async def test_a_loss_before_the_scan_does_not_end_a_pairing(
    pool: Pool, simulator: SimulatorProcess, postgres: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="service.session")
    await simulator.control.create_phone(PHONE)
    watched = await start(pool)
    code, _ = await watched.expect(CodeShown)
    await terminate_idle(postgres.url)
    # A scan that came before the relay has noticed would have a statement under way.
    await eventually(lambda: "an idle connection to Postgres was lost" in caplog.text, "the loss to be noticed")
    await simulator.control.scan(PHONE, code.text)
    await watched.expect(Connected)


async def test_connections_that_the_library_closes_by_itself_are_no_loss(
    simulator: SimulatorProcess, database_url: str, postgres_admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    """A relay that takes that for a loss ends its process again and again."""
    name = urlsplit(database_url).path[1:]
    async with pool_of(database_url, simulator, "tests.e2e.busy_queries:aim_and_ask") as pool:
        watched, _ = await pair(pool, simulator.control, PHONE)
        await simulator.control.create_phone(FRIEND)
        before = await sessions(postgres_admin, name)
        async with asyncio.timeout(60):
            while await sessions(postgres_admin, name) - before < 100:
                await asyncio.sleep(0.2)
        await simulator.control.write(FRIEND, PHONE, "still here")
        await watched.message(lambda message: message.text == "still here")
        await watched.process.stop(5)
        assert await watched.ended() == Ended(Cause.STOPPED, "asked to stop")


async def sessions(admin: asyncpg.Connection[asyncpg.Record], database: str) -> int:
    """How many connections to a database were made so far."""
    query = "SELECT sessions FROM pg_stat_database WHERE datname = $1"
    count: int = await admin.fetchval(query, database)
    return count


async def test_a_session_behind_tls(
    simulator: SimulatorProcess, database_url: str, tmp_path: Path, postgres_admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    authority = Authority(tmp_path)
    parts = urlsplit(database_url)
    with TlsTerminator(parts.port or 0, authority.server_context("localhost")) as terminator:
        where = parts._replace(
            netloc=f"{parts.username}:{parts.password}@localhost:{terminator.port}",
            query=f"sslmode=verify-full&sslrootcert={authority.file}",
        )
        async with pool_of(where.geturl(), simulator) as pool:
            watched, _ = await pair(pool, simulator.control, PHONE)
            assert terminator.encrypted > 1
            await terminate_idle(database_url)
            await simulator.control.create_phone(FRIEND)
            await simulator.control.write(FRIEND, PHONE, "over a connection that was dialled anew")
            await watched.message()
        assert terminator.plain == 0


STANDBY = (
    AUTHENTICATED
    + message("S", b"in_hot_standby\0on\0")
    + message("S", b"default_transaction_read_only\0off\0")
    + READY
)


async def test_of_several_servers_the_library_takes_the_one_that_the_address_asks_for(
    simulator: SimulatorProcess, database_url: str
) -> None:
    """One is away, one is a standby, one is right: lib/pq's own choice, each by a door of the relay's."""
    parts = urlsplit(database_url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    with ScriptedPostgres(say(STANDBY)) as standby:
        hosts = f"127.0.0.1:{closed},127.0.0.1:{standby.port},127.0.0.1:{parts.port}"
        several = f"postgresql://{parts.username}:{parts.password}@{hosts}{parts.path}"
        url = f"{several}?sslmode=disable&target_session_attrs=primary"
        async with pool_of(url, simulator) as pool:
            watched, _ = await pair(pool, simulator.control, PHONE)
            assert len(standby.connections) > 1
            assert not any(isinstance(heard.observation, Ended) for heard in watched.heard)


async def test_if_none_of_the_servers_is_right_the_library_hears_no_error(simulator: SimulatorProcess) -> None:
    with ScriptedPostgres(say(STANDBY)) as standby:
        url = f"postgresql://me@127.0.0.1:{standby.port}/db?sslmode=disable&target_session_attrs=primary"
        with pytest.raises(StoreNotPrepared, match="none of the servers is of use"):
            async with pool_of(url, simulator):
                pass


async def test_a_wrong_password_is_told_when_the_tables_are_made(
    simulator: SimulatorProcess, database_url: str
) -> None:
    wrong = database_url.replace(urlsplit(database_url).password or "", "not-it")
    with pytest.raises(StoreNotPrepared, match='FATAL 28P01: password authentication failed for user "zap"'):
        async with pool_of(wrong, simulator):
            pass


async def test_what_kept_the_tables_from_being_made_is_told_when_the_time_is_over(
    simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.workers.pool._PREPARE_SECONDS", 3.0)
    starting = refuse(error("FATAL", "57P03", "the database system is starting up"))
    with ScriptedPostgres(starting) as server:
        url = f"postgresql://me@127.0.0.1:{server.port}/db?sslmode=disable"
        with pytest.raises(StoreNotPrepared, match="57P03: the database system is starting up"):
            async with pool_of(url, simulator):
                pass


async def until_idle(url: str) -> None:
    """Wait until no session process has asked anything for a while."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'zap/one/%' AND NOT"
    idle = "(state = 'idle' AND state_change < clock_timestamp() - interval '0.5 s')"
    admin = await asyncpg.connect(url)
    async with asyncio.timeout(20):
        while await admin.fetchval(f"{asked} {idle}"):
            await asyncio.sleep(0.05)
    await admin.close()


async def terminate_idle(url: str) -> None:
    """End the backends of every session process, in one statement with the look whether none has asked for a while."""
    ours = """
        WITH ours AS (
            SELECT pid, state = 'idle' AND state_change < clock_timestamp() - interval '0.5 s' AS is_idle
            FROM pg_stat_activity WHERE application_name LIKE 'zap/one/%'
        )
        SELECT pg_terminate_backend(pid) FROM ours WHERE (SELECT bool_and(is_idle) FROM ours)
    """
    admin = await asyncpg.connect(url)
    async with asyncio.timeout(20):
        while not await admin.fetch(ours):
            await asyncio.sleep(0.05)
    await admin.close()


async def terminate(url: str) -> None:
    """End the backends of every session process."""
    admin = await asyncpg.connect(url)
    await admin.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'zap/one/%'")
    await admin.close()
