"""The embedded servers: started, joined, left, killed, and in folders that resist."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError

from dev import (
    DataDirectoryUnusableError,
    EmbeddedPostgres,
    EmbeddedValkey,
    ServerHeldElsewhereError,
    ServerStartError,
    folder,
    postgres,
)
from dev.account import Account, ours, without_root
from dev.claim import Claim
from dev.process import choose_port
from tests.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
AS_ROOT = os.geteuid() == 0
Server = EmbeddedPostgres | EmbeddedValkey
both = pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey], ids=["postgres", "valkey"])

# Starts a server, says so, and waits to be killed.
STARTER = """
import asyncio, sys
from pathlib import Path
import dev
async def main():
    server = getattr(dev, sys.argv[1])(Path(sys.argv[2]), die_with_starter=sys.argv[3] == "die")
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""

# Uses both servers once as we are, so that everything is imported, and then as the account given by number.
ORDINARY = """
import asyncio, os, sys
from pathlib import Path
import asyncpg
from dev import EmbeddedPostgres, EmbeddedValkey
async def use(folder):
    async with EmbeddedPostgres(folder, durable=False) as postgres, EmbeddedValkey(folder):
        connection = await asyncpg.connect(postgres.url)
        print(os.geteuid(), await connection.fetchval("SELECT 1"), flush=True)
        await connection.close()
asyncio.run(use(Path(sys.argv[1])))
os.setgroups([])
os.setgid(int(sys.argv[4]))
os.setuid(int(sys.argv[3]))
asyncio.run(use(Path(sys.argv[2])))
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder that every account can reach, with a space in its name."""
    path = Path(tempfile.mkdtemp(prefix="zap tests-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def connected(server: EmbeddedPostgres) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(server.url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def starter(kind: type[Server], data_dir: Path, fate: str = "live") -> AsyncIterator[tuple[int, int]]:
    """Another process that has started a server: its number and the server's."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, kind.__name__, str(data_dir), fate, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process.pid, int(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not awaited does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def gone(pid: int, seconds: float = 10) -> bool:
    for _ in range(int(seconds / 0.02)):
        if not is_alive(pid):
            return True
        await asyncio.sleep(0.02)
    return False


# --- what they offer ---------------------------------------------------------------------------------------------


async def test_postgres_has_the_settings_the_service_relies_on(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as server, connected(server) as connection:
        settings = {
            name: await connection.fetchval("SELECT current_setting($1)", name)
            for name in ("max_connections", "max_prepared_transactions", "fsync", "listen_addresses", "server_encoding")
        }
        assert settings == {
            "max_connections": "300",
            "max_prepared_transactions": "0",
            "fsync": "on",
            "listen_addresses": "127.0.0.1",
            "server_encoding": "UTF8",
        }
        assert await connection.fetchval("SELECT current_database()") == "zap"
        assert (await connection.fetchval("SHOW server_version")).startswith("18.")


async def test_postgres_asks_for_the_password_in_its_closed_file(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir, durable=False) as server:
        assert (data_dir / "postgres" / "password").stat().st_mode & 0o777 == 0o600
        assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url, password="guessed")


async def test_valkey_publishes_and_asks_for_its_password(data_dir: Path) -> None:
    async with EmbeddedValkey(data_dir) as server:
        assert (data_dir / "valkey" / "valkey.conf").stat().st_mode & 0o777 == 0o600
        async with Redis.from_url(server.url) as redis, redis.pubsub() as subscription:
            await subscription.subscribe("channel")
            await subscription.get_message(timeout=5)
            await redis.publish("channel", "hello")
            message = await subscription.get_message(timeout=5)
        assert message is not None
        assert message["data"] == b"hello"
        with pytest.raises(AuthenticationError):
            async with Redis(port=server.port, password="guessed", retry=Retry(NoBackoff(), 0)) as redis:
                await redis.set("key", "value")


@both
async def test_nothing_is_printed_and_no_secret_is_passed_on(
    kind: type[Server], data_dir: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZAP_AUTH_TOKEN", "not-for-servers")
    async with kind(data_dir) as server:
        command_line = Path(f"/proc/{server.pid}/cmdline").read_text()
        password = server.url.split(":")[2].partition("@")[0]
        assert password not in command_line
        # A container's root may not look there; then neither may anybody else.
        with contextlib.suppress(PermissionError):
            assert "not-for-servers" not in Path(f"/proc/{server.pid}/environ").read_text()
    assert capfd.readouterr() == ("", "")


# --- start, join, leave ------------------------------------------------------------------------------------------


async def test_data_and_port_survive_a_restart(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as server, connected(server) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
        port = server.port
    started = time.monotonic()
    async with EmbeddedPostgres(data_dir) as server, connected(server) as connection:
        assert await connection.fetchval("SELECT number FROM kept") == 42
        assert server.port == port
        assert time.monotonic() - started < 10  # 0.04 s as a rule; the bound only tells it from a hang.


@both
async def test_the_last_of_two_users_stops_the_server(kind: type[Server], data_dir: Path) -> None:
    first, second = kind(data_dir), kind(data_dir)
    await asyncio.gather(first.start(), second.start())
    assert first.pid == second.pid
    assert first.url == second.url
    assert sorted([first.was_joined, second.was_joined]) == [False, True]
    await first.stop()
    assert is_alive(second.pid)
    await second.stop()
    assert await gone(second.pid)


@both
async def test_a_user_in_another_process_keeps_the_server_up(kind: type[Server], data_dir: Path) -> None:
    async with starter(kind, data_dir) as (_, pid):
        async with kind(data_dir) as server:
            assert server.pid == pid
        assert is_alive(pid)
    async with kind(data_dir) as server:
        assert server.pid == pid
    assert await gone(pid)


@both
async def test_a_server_whose_starter_was_killed_is_used_again(kind: type[Server], data_dir: Path) -> None:
    async with starter(kind, data_dir) as (service, pid):
        os.kill(service, signal.SIGKILL)
    assert is_alive(pid)
    started = time.monotonic()
    async with kind(data_dir) as server:
        assert time.monotonic() - started < 3
        assert server.was_joined
        assert server.pid == pid
    assert await gone(pid)


@both
async def test_a_server_for_tests_dies_with_its_starter(kind: type[Server], data_dir: Path) -> None:
    async with starter(kind, data_dir, "die") as (service, pid):
        os.kill(service, signal.SIGKILL)
        assert await gone(pid)


@both
async def test_after_kill_9_of_everything_the_next_start_works(kind: type[Server], data_dir: Path) -> None:
    async with kind(data_dir) as server:
        if isinstance(server, EmbeddedPostgres):
            async with connected(server) as connection:
                await connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
        port = server.port
        os.kill(server.pid, signal.SIGKILL)
        assert await gone(server.pid)
    async with kind(data_dir) as server:
        assert not server.was_joined
        assert server.port == port
        if isinstance(server, EmbeddedPostgres):
            async with connected(server) as connection:
                assert await connection.fetchval("SELECT number FROM kept") == 42


async def test_killed_postgres_whose_connections_linger_is_waited_for(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as server:
        lingering = await asyncpg.connect(server.url)
        backend = await lingering.fetchval("SELECT pg_backend_pid()")
        os.kill(backend, signal.SIGSTOP)
        os.kill(server.pid, signal.SIGKILL)
        asyncio.get_running_loop().call_later(1, os.kill, backend, signal.SIGCONT)
        lingering.terminate()
    async with EmbeddedPostgres(data_dir) as server, connected(server) as connection:
        assert await connection.fetchval("SELECT 1") == 1


@both
async def test_a_process_number_given_to_somebody_else_is_no_server(kind: type[Server], data_dir: Path) -> None:
    async with kind(data_dir) as server:
        os.kill(server.pid, signal.SIGKILL)
        dead = server.pid
    account = without_root() if kind is EmbeddedPostgres else ours()
    with subprocess.Popen(["/bin/sleep", "60"], user=account.switch_user) as stranger:
        for name in ("postgres/cluster/postmaster.pid", "valkey/pid"):
            if (path := data_dir / name).exists():
                path.write_text(path.read_text().replace(str(dead), str(stranger.pid)))
        async with kind(data_dir) as server:
            assert server.pid not in {dead, stranger.pid}
        assert stranger.poll() is None
        stranger.kill()


# --- folders that resist -----------------------------------------------------------------------------------------


@both
async def test_a_taken_port_is_exchanged_for_another(kind: type[Server], data_dir: Path) -> None:
    async with kind(data_dir) as server:
        port = server.port
    with socket.socket() as occupant:
        occupant.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        occupant.bind(("127.0.0.1", port))
        occupant.listen()
        async with kind(data_dir) as server:
            assert server.port != port


@both
async def test_a_port_lost_to_another_at_the_last_moment_is_exchanged(
    kind: type[Server], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        taken = occupant.getsockname()[1]
        choices = iter([taken])
        monkeypatch.setattr("dev.server.choose_port", lambda wanted: next(choices, None) or choose_port(wanted))
        async with kind(data_dir) as server:
            assert server.port != taken


async def test_half_a_cluster_is_thrown_away(data_dir: Path) -> None:
    account = without_root()
    unfinished = data_dir / "postgres" / "cluster.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18")
    account.take(unfinished.parent)
    async with EmbeddedPostgres(data_dir, durable=False) as server, connected(server) as connection:
        assert await connection.fetchval("SELECT 1") == 1
    assert not unfinished.exists()


@both
async def test_an_unusable_folder_is_named_with_its_setting(kind: type[Server], data_dir: Path) -> None:
    (data_dir / "file").write_text("not a folder")
    with pytest.raises(DataDirectoryUnusableError, match=r"file.*ZAP_DATA_DIR"):
        await kind(data_dir / "file").start()


@both
async def test_a_user_out_of_sight_is_not_disturbed(kind: type[Server], data_dir: Path) -> None:
    elsewhere = Claim(data_dir, kind.name)
    elsewhere.join()
    with pytest.raises(ServerHeldElsewhereError, match="ZAP_DATA_DIR"):
        await kind(data_dir).start()
    elsewhere.leave()
    async with kind(data_dir):
        pass


async def test_a_server_that_cannot_start_shows_the_end_of_its_log(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir, durable=False):
        pass
    (data_dir / "postgres" / "cluster" / "PG_VERSION").write_text("9.6")
    with pytest.raises(ServerStartError, match="incompatible with server"):
        await EmbeddedPostgres(data_dir).start()


@both
async def test_a_cancelled_start_leaves_no_server(
    kind: type[Server], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = kind(data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "_is_ready", lambda _: False)
        start = asyncio.create_task(server.start())
        await eventually(lambda: server.pid)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
    assert not is_alive(server.pid)
    async with kind(data_dir) as other:
        assert not other.was_joined


@pytest.mark.skipif(not AS_ROOT, reason="only root runs Postgres as another user")
async def test_root_in_a_closed_folder_keeps_the_files_outside(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside, closed = data_dir / "outside", data_dir / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(folder, "OUTSIDE", outside)
    for _ in range(2):
        async with EmbeddedPostgres(closed / "data", durable=False) as server, connected(server) as connection:
            await connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        assert [path.name for path in outside.iterdir()] == [(closed / "data" / "postgres").resolve().name]
    shutil.rmtree(closed / "data")
    async with EmbeddedPostgres(closed / "data", durable=False) as server, connected(server) as connection:
        assert await connection.fetchval("SELECT to_regclass('kept')") is None


@pytest.mark.skipif(not AS_ROOT, reason="only root runs Postgres as another user")
async def test_root_with_a_closed_environment_runs_a_copy(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    can = Account.can

    def sees_no_program(self: Account, test: str, path: Path) -> bool:
        return test != "-x" and can(self, test, path)

    monkeypatch.setattr(Account, "can", sees_no_program)
    async with EmbeddedPostgres(data_dir, durable=False) as server, connected(server) as connection:
        command = Path(f"/proc/{server.pid}/cmdline").read_text()
        assert command.startswith(str(data_dir / "postgres" / "program-"))
        assert await connection.fetchval("SELECT 1") == 1


@pytest.mark.skipif(not AS_ROOT, reason="every other test here runs as an ordinary user already")
async def test_an_ordinary_user_runs_both(data_dir: Path) -> None:
    nobody = without_root()
    if not nobody.can("-x", postgres.program_for(ours(), data_dir) / "postgres"):
        pytest.skip("this environment lies in a folder closed to other users")
    theirs = data_dir / "theirs"
    theirs.mkdir()
    nobody.take(theirs)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", ORDINARY, str(data_dir / "roots"), str(theirs), str(nobody.uid), str(nobody.gid)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert output.decode().splitlines() == ["0 1", f"{nobody.uid} 1"]
    assert (theirs / "postgres").stat().st_uid == nobody.uid


# --- the fixtures that other tests use ---------------------------------------------------------------------------


async def test_every_test_gets_a_database_of_its_own(
    database_url: str, postgres_admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE TABLE mine ()")
    name = await connection.fetchval("SELECT current_database()")
    await connection.close()
    assert name.startswith("test_")
    assert await postgres_admin.fetchval("SELECT count(*) FROM pg_database WHERE datname LIKE 'test\\_%'") == 1


async def test_every_test_gets_an_empty_redis(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        assert await redis.dbsize() == 0
        await redis.set("key", "value")
