"""The relay in front of a real Postgres, with a real driver: what passes, what is silence, what it costs in memory."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from dev import EmbeddedPostgres
from service.pgrelay.ack_gate import CHECK_INTERVAL_S
from service.workers import dsn
from tests.eventually import eventually
from tests.fakes.relayed import Relayed
from tests.tls_terminator import Authority, TlsTerminator

MEGABYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def _abstract_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncpg knows Unix sockets by their path: `/@name` stands for the abstract one that lib/pq calls `@name`."""
    original = asyncio.SelectorEventLoop.create_unix_connection

    async def create(self: Any, protocol: Any, path: Any = None, **more: Any) -> Any:
        is_abstract = isinstance(path, str) and path.startswith("/@")
        return await original(self, protocol, "\0" + path[2:] if is_abstract else path, **more)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "create_unix_connection", create)


@pytest.fixture(scope="module")
async def own_server(server_folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    async with EmbeddedPostgres(server_folder / "relay", durable=False, die_with_starter=True) as server:
        yield server


@pytest.fixture
async def postgres(own_server: EmbeddedPostgres) -> EmbeddedPostgres:
    """One that may be stopped: in a folder of its own, which remembers its port."""
    if not runs(own_server):
        await own_server.stop()
        await own_server.start()
    return own_server


def runs(server: EmbeddedPostgres) -> bool:
    try:
        return bool(psutil.Process(server.pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def relayed(url: str, answer_timeout: float | None = 15.0) -> Relayed:
    address = dsn.for_session(url, "one", 1, {})
    return Relayed(address.database, answer_timeout, address.url)


async def connect(relay: Relayed, url: str, timeout: float = 30) -> Any:
    """As the library would: by way of the relay, as the one whom the URL names."""
    parts = urlsplit(url)
    return await asyncpg.connect(
        host=f"/{relay.host}",
        port=1,
        user=parts.username,
        password=parts.password,
        database=parts.path[1:],
        ssl=False,
        timeout=timeout,
        server_settings={"application_name": "relayed"},
    )


def by_way_of(url: str, port: int, host: str = "127.0.0.1", **settings: Any) -> str:
    """The same database, elsewhere."""
    parts = urlsplit(url)
    query = "&".join(f"{key}={value}" for key, value in settings.items())
    return f"postgresql://{parts.username}:{parts.password}@{host}:{port}{parts.path}?{query}"


async def is_silent(awaitable: Any, seconds: float = 1.0) -> bool:
    """Whether there is no outcome for so long, neither a result nor an error."""
    task = asyncio.ensure_future(awaitable)
    done, _ = await asyncio.wait((task,), timeout=seconds)
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
    return not done


# --- what passes


async def test_queries_pass_both_ways(database_url: str) -> None:
    with relayed(database_url) as relay:
        connection = await connect(relay, database_url)
        assert await connection.fetchval("SELECT $1::text", "ä" * 100_000) == "ä" * 100_000
        await connection.execute("CREATE TABLE t (x bytea)")
        for size in (0, 1, 4095, 65535, 65536, 3 * MEGABYTE):
            await connection.execute("INSERT INTO t VALUES ($1)", bytes(size))
        assert await connection.fetchval("SELECT sum(length(x)) FROM t") == 4095 + 65535 + 65536 + 3 * MEGABYTE + 1
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.execute("SELECT * FROM nowhere")
        async with connection.transaction():
            await connection.execute("DELETE FROM t")
        await connection.close()
        assert relay.losses == []


async def test_many_connections_at_once(database_url: str) -> None:
    with relayed(database_url) as relay:
        connections = await asyncio.gather(*(connect(relay, database_url) for _ in range(20)))

        async def work(connection: Any, number: int) -> None:
            for step in range(50):
                assert await connection.fetchval("SELECT $1::int + $2::int", number, step) == number + step

        await asyncio.gather(*(work(connection, number) for number, connection in enumerate(connections)))
        await asyncio.gather(*(connection.close() for connection in connections))
        assert relay.losses == []


async def test_connections_that_come_and_go_leave_nothing_behind(database_url: str) -> None:
    with relayed(database_url) as relay:
        await (await connect(relay, database_url)).close()
        descriptors, threads = open_descriptors(), threading.active_count()
        for _ in range(30):
            connection = await connect(relay, database_url)
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
        await eventually(lambda: open_descriptors() <= descriptors, "their descriptors")
        await eventually(lambda: threading.active_count() <= threads, "their threads")
        assert relay.losses == []


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_query_can_be_cancelled(database_url: str) -> None:
    with relayed(database_url) as relay:
        connection = await connect(relay, database_url)
        with pytest.raises(TimeoutError):
            await connection.execute("SELECT pg_sleep(60)", timeout=0.3)
        assert await connection.fetchval("SELECT 1") == 1, "the server has heard of it"
        await connection.close()
        assert relay.losses == []


async def test_a_hundred_megabytes_pass_through_little_memory(database_url: str) -> None:
    with relayed(database_url) as relay:
        connection = await connect(relay, database_url)
        received = 0

        async def take(data: bytes) -> None:
            nonlocal received
            if not received:
                await asyncio.sleep(1.0)  # the server could have sent all of it by now
            received += len(data)

        tracemalloc.start()
        try:
            query = "SELECT repeat('x', 100000) FROM generate_series(1, 1000)"
            await connection.copy_from_query(query, output=take)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert received > 100_000_000
        assert peak < 20 * MEGABYTE, "the driver's as well"
        await connection.close()
        assert relay.losses == []


async def test_an_idle_relay_does_not_wake_up(database_url: str) -> None:
    with relayed(database_url) as relay:
        connections = [await connect(relay, database_url) for _ in range(3)]
        await connections[0].fetchval("SELECT 1")
        # It looks once more after the last answer.
        await asyncio.sleep(2 * CHECK_INTERVAL_S)
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "relay")
        before = switches(thread)
        await asyncio.sleep(2.0)
        assert switches(thread) == before
        for connection in connections:
            await connection.close()


def switches(thread: threading.Thread) -> int:
    """How often it has gone to sleep so far."""
    lines = Path(f"/proc/self/task/{thread.native_id}/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("voluntary_ctxt_switches")))


async def test_a_unix_socket_works_as_well(database_url: str, tmp_path: Path) -> None:
    """Postgres' own path, with something in between: the embedded one listens on TCP alone."""
    port = urlsplit(database_url).port or 0
    server = await asyncio.start_unix_server(lambda r, w: _forward(r, w, port), tmp_path / ".s.PGSQL.5433")
    url = database_url.replace(f"127.0.0.1:{port}", f"{str(tmp_path).replace('/', '%2F')}:5433")
    url = url.replace("sslmode=disable", "sslmode=verify-full")  # TLS is for TCP
    with relayed(url) as relay:
        connection = await connect(relay, database_url)
        assert await connection.fetchval("SELECT 7") == 7
        await connection.close()
    server.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        target.close()

    await asyncio.gather(pass_on(reader, there_writer), pass_on(there_reader, writer))


# --- what is silence


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """A server all of whose processes are stopped, as on a machine that is paused."""
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


async def two_connections(relay: Relayed, url: str) -> tuple[Any, Any]:
    """One in a transaction, one idle."""
    busy, idle = await connect(relay, url), await connect(relay, url)
    await busy.execute("BEGIN")
    await busy.execute("SELECT 1")
    return busy, idle


async def test_a_backend_that_is_terminated_in_a_transaction_is_a_loss(database_url: str, postgres_admin: Any) -> None:
    with relayed(database_url) as relay:
        busy, idle = await two_connections(relay, database_url)
        assert await postgres_admin.fetchval("SELECT pg_terminate_backend($1)", busy.get_server_pid())
        await eventually(lambda: relay.losses, "the loss")
        assert relay.losses == ["FATAL 57P01: terminating connection due to administrator command"]
        assert await is_silent(busy.execute("SELECT 2")), "its transaction is gone"
        assert await idle.fetchval("SELECT 2") == 2, "it is not lost"
        await (await connect(relay, database_url)).close()
        assert len(relay.losses) == 1


async def test_an_idle_backend_that_is_terminated_is_no_loss(database_url: str, postgres_admin: Any) -> None:
    with relayed(database_url) as relay:
        busy, idle = await two_connections(relay, database_url)
        assert await postgres_admin.fetchval("SELECT pg_terminate_backend($1)", idle.get_server_pid())
        await eventually(idle.is_closed, "the end of it")
        assert "57P01" in str(relay.lines)
        assert await busy.fetchval("SELECT 2") == 2
        assert relay.losses == []


async def test_in_the_middle_of_a_query(database_url: str, postgres_admin: Any) -> None:
    with relayed(database_url) as relay:
        connection = await connect(relay, database_url)
        query = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.3)
        await postgres_admin.fetchval("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        await eventually(lambda: relay.losses, "the loss")
        assert await is_silent(query)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
async def test_a_server_that_stops_is_a_loss(postgres: EmbeddedPostgres, number: signal.Signals) -> None:
    """Fast, immediately, and killed: its backends say FATAL, FATAL, and nothing."""
    with relayed(postgres.url) as relay:
        busy, idle = await two_connections(relay, postgres.url)
        os.kill(postgres.pid, number)
        await eventually(lambda: relay.losses, "the loss")
        assert len(relay.losses) == 1
        assert await is_silent(busy.execute("SELECT 2"))
        await eventually(idle.is_closed, "the end of what was idle")
    await eventually(lambda: not runs(postgres), "the end of the server")


async def test_a_backend_that_is_killed_is_a_loss_for_all(postgres: EmbeddedPostgres) -> None:
    """Postgres ends every connection then, and starts again."""
    with relayed(postgres.url) as relay, relayed(postgres.url) as other:
        busy, _ = await two_connections(relay, postgres.url)
        its_own = await two_connections(other, postgres.url)
        os.kill(busy.get_server_pid(), signal.SIGKILL)
        await eventually(lambda: relay.losses and other.losses, "both losses")
        del its_own
    with relayed(postgres.url) as again:
        connection = await connect(again, postgres.url)
        assert await connection.fetchval("SELECT 1") == 1, "the dial has waited while it was starting"
        await connection.close()


async def test_a_server_that_stops_is_waited_for_at_the_start(postgres: EmbeddedPostgres) -> None:
    await postgres.stop()
    with relayed(postgres.url) as relay:
        connecting = asyncio.create_task(connect(relay, postgres.url))
        await asyncio.sleep(1.0)
        assert not connecting.done()
        await postgres.start()
        back = time.monotonic()
        connection = await connecting
        assert time.monotonic() - back < 3, "design.md, 5b"
        await connection.close()
        assert relay.losses == []


async def test_a_frozen_server_is_a_loss_once_it_owes_an_answer(postgres: EmbeddedPostgres) -> None:
    with relayed(postgres.url, answer_timeout=1.0) as relay:
        connection = await connect(relay, postgres.url)
        with frozen(postgres):
            await asyncio.sleep(1.5)
            assert relay.losses == [], "nothing was asked"
            assert await is_silent(connection.execute("SELECT 1"), 2.0)
            assert relay.losses == ["Postgres has not answered for 1 s"]


async def test_a_frozen_server_is_waited_for_at_the_start(postgres: EmbeddedPostgres) -> None:
    with relayed(postgres.url) as relay:
        with frozen(postgres):
            connecting = asyncio.create_task(connect(relay, postgres.url))
            await asyncio.sleep(1.0)
            assert not connecting.done()
        await (await connecting).close()
        assert relay.losses == []


async def test_a_server_that_is_full_is_waited_for(postgres: EmbeddedPostgres, database_url: str) -> None:
    """The connections that are left are the superuser's, and refused before or after the login, as the server likes."""
    admin = await asyncpg.connect(postgres.url)
    await admin.execute("CREATE ROLE small LOGIN PASSWORD 'pw' CONNECTION LIMIT 1")
    small = f"postgresql://small:pw@127.0.0.1:{postgres.port}/zap?sslmode=disable"
    with relayed(small) as relay:
        first = await connect(relay, small)
        assert await is_silent(connect(relay, small)), "refused after the login: a loss"
        assert relay.losses == ['FATAL 53300: too many connections for role "small"']
        del first
    await admin.close()


async def test_a_wrong_password_is_a_loss_that_says_so(database_url: str) -> None:
    wrong = database_url.replace(urlsplit(database_url).password or "", "not-it")
    with relayed(wrong) as relay:
        assert await is_silent(connect(relay, wrong))
        assert relay.losses == ['FATAL 28P01: password authentication failed for user "zap"']


# --- what another connection takes over

# --- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def terminator(database_url: str, authority: Authority) -> Iterator[TlsTerminator]:
    port = urlsplit(database_url).port or 0
    with TlsTerminator(port, authority.server_context("localhost")) as terminator:
        yield terminator


async def gets_through(url: str, seconds: float = 15.0) -> str:
    """Nothing if a query is answered, else what the relay has to say."""
    with relayed(url) as relay:
        try:
            connection = await connect(relay, url, timeout=seconds)
        except (TimeoutError, OSError, asyncpg.PostgresError):
            return relay.relay.trouble or str(relay.losses)
        # More than one record of TLS, in both directions.
        assert len(await connection.fetchval("SELECT $1 || repeat('x', 1000000)", "y" * 1_000_000)) == 2_000_000
        for number in range(200):
            assert await connection.fetchval("SELECT $1::int", number) == number
        await connection.close()
        return "" if not relay.losses else relay.losses[0]


@pytest.mark.parametrize(
    ("mode", "host", "encrypted"),
    [
        ("disable", "localhost", False),
        ("allow", "localhost", False),
        ("prefer", "localhost", True),
        ("require", "localhost", True),
        ("require", "127.0.0.1", True),
        ("verify-ca", "localhost", True),
        ("verify-ca", "127.0.0.1", True),
        ("verify-full", "localhost", True),
    ],
)
async def test_modes_of_tls_against_a_server_that_has_it(
    terminator: TlsTerminator, authority: Authority, database_url: str, mode: str, host: str, encrypted: bool
) -> None:
    root = {"sslrootcert": authority.file} if mode.startswith("verify") else {}
    assert await gets_through(by_way_of(database_url, terminator.port, host, sslmode=mode, **root)) == ""
    assert (terminator.encrypted > 0, terminator.plain > 0) == (encrypted, not encrypted)


@pytest.mark.parametrize(("mode", "works"), [("allow", True), ("prefer", True), ("require", False)])
async def test_modes_of_tls_against_a_server_that_has_none(database_url: str, mode: str, works: bool) -> None:
    with TlsTerminator(urlsplit(database_url).port or 0, None) as plain:
        trouble = await gets_through(by_way_of(database_url, plain.port, sslmode=mode), 15.0 if works else 1.5)
        assert (trouble == "") is works
        assert works or "does not speak TLS" in trouble
        assert works or plain.plain == 0


@pytest.mark.parametrize(
    ("settings", "host", "complaint"),
    [
        ({"sslmode": "verify-full", "sslrootcert": "ours"}, "127.0.0.1", "IP address mismatch"),
        ({"sslmode": "verify-ca", "sslrootcert": "strangers"}, "localhost", "certificate verify failed"),
        # As in libpq: who names a root certificate wants it to be looked at.
        ({"sslmode": "require", "sslrootcert": "strangers"}, "localhost", "certificate verify failed"),
        ({"sslmode": "verify-full", "sslrootcert": "ours", "sslcrl": "revoked"}, "localhost", "certificate revoked"),
        ({"sslmode": "verify-full", "sslrootcert": "system"}, "localhost", "certificate verify failed"),
        ({"sslmode": "verify-full", "sslrootcert": "/nowhere/at-all.pem"}, "localhost", "No such file"),
        ({"sslmode": "require", "ssl_max_protocol_version": "TLSv1.2"}, "localhost", "rotocol"),
    ],
)
async def test_a_server_that_is_not_the_right_one_is_not_talked_to(
    database_url: str, authority: Authority, tmp_path: Path, settings: dict[str, str], host: str, complaint: str
) -> None:
    context = authority.server_context("localhost")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    files = {
        "ours": str(authority.file),
        "strangers": str(Authority(tmp_path, "strangers").file),
        "revoked": str(authority.revoke(authority.last_number)),
    }
    settings = {key: files.get(value, value) for key, value in settings.items()}
    with TlsTerminator(urlsplit(database_url).port or 0, context) as server:
        trouble = await gets_through(by_way_of(database_url, server.port, host, **settings), 1.5)
        assert complaint in trouble
        assert (server.encrypted, server.plain) == (0, 0), "nor in the clear"


@pytest.mark.parametrize("password", ["", "of the key"])
async def test_a_certificate_of_ours(database_url: str, authority: Authority, password: str) -> None:
    certificate, key, _ = authority.issue("zap", password)
    context = authority.server_context("localhost", clients=authority.file)
    with TlsTerminator(urlsplit(database_url).port or 0, context) as server:
        ours = {"sslcert": str(certificate), "sslkey": str(key), "sslpassword": password.replace(" ", "%20")}
        assert await gets_through(by_way_of(database_url, server.port, sslmode="require", **ours)) == ""
        trouble = await gets_through(by_way_of(database_url, server.port, sslmode="require"), 1.5)
        assert trouble != ""


async def test_the_name_of_the_server_is_sent_unless_it_is_not_to_be(
    terminator: TlsTerminator, database_url: str
) -> None:
    for host, sni in (("localhost", 1), ("localhost", 0), ("127.0.0.1", 1)):
        url = by_way_of(database_url, terminator.port, host, sslmode="require", sslsni=sni)
        assert await gets_through(url) == ""
    assert terminator.names == ["localhost", None, None]


async def test_tls_without_being_asked(database_url: str, authority: Authority) -> None:
    context = authority.server_context("localhost")
    context.set_alpn_protocols(["postgresql"])
    with TlsTerminator(urlsplit(database_url).port or 0, context, direct=True) as server:
        url = by_way_of(database_url, server.port, "localhost", sslmode="require", sslnegotiation="direct")
        assert await gets_through(url) == ""
        assert server.encrypted == 1


async def test_a_certificate_that_is_replaced_is_read_again(database_url: str, tmp_path: Path) -> None:
    old = Authority(tmp_path, "old")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(old.file.read_bytes())
    port = urlsplit(database_url).port or 0
    with TlsTerminator(port, Authority(tmp_path, "new").server_context("localhost")) as server:
        url = by_way_of(database_url, server.port, "localhost", sslmode="verify-full", sslrootcert=trusted)
        with relayed(url) as relay:
            connecting = asyncio.create_task(connect(relay, url))
            await eventually(lambda: "certificate verify failed" in relay.relay.trouble, "a refusal")
            trusted.write_bytes((tmp_path / "new.pem").read_bytes())
            await (await connecting).close()


async def test_a_loss_behind_tls_is_a_loss(terminator: TlsTerminator, database_url: str, postgres_admin: Any) -> None:
    url = by_way_of(database_url, terminator.port, "localhost", sslmode="require")
    with relayed(url) as relay:
        connection = await connect(relay, url)
        await connection.execute("BEGIN")
        await postgres_admin.fetchval("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        await eventually(lambda: relay.losses, "the loss")
        assert relay.losses == ["FATAL 57P01: terminating connection due to administrator command"]
        assert await is_silent(connection.execute("SELECT 2"))
