"""What a start is told when something is wrong: one sentence that names the setting, no stack trace."""

import asyncio
import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from dev import EmbeddedPostgres
from service.worker.library.switches import WHATSMEOW
from simulator.control import SimulatorControl
from tests.altered_neonize import AlteredNeonize
from tests.caller import State
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.eventually import eventually
from tests.service_process import ROOT, ServiceProcess, free_port
from tests.tcp_proxy import TcpProxy

EXECUTES_NODES = True


async def refusal(environment: dict[str, str]) -> tuple[int, str]:
    """The exit code and the output of a node that must not start."""
    node = ServiceProcess(environment)
    await node.start()
    code = await node.wait()
    return code, node.log()


def with_netloc(url: str, **changes: object) -> str:
    """The URL with another host, port, user or password."""
    parts = urlsplit(url)
    given = {"user": parts.username, "password": parts.password, "host": parts.hostname, "port": parts.port, **changes}
    return parts._replace(netloc="{user}:{password}@{host}:{port}".format(**given)).geturl()


async def test_a_wrong_password_is_told_at_once(node_environment: dict[str, str], database_url: str) -> None:
    code, log = await refusal({**node_environment, "DATABASE_URL": with_netloc(database_url, password="wrong-secret")})
    assert code == os.EX_UNAVAILABLE
    assert "DATABASE_URL" in log
    assert "password authentication failed" in log
    assert "Traceback" not in log
    assert "wrong-secret" not in log


async def test_a_database_that_does_not_exist_is_told_at_once(
    node_environment: dict[str, str], database_url: str
) -> None:
    url = urlsplit(database_url)._replace(path="/nowhere").geturl()
    code, log = await refusal({**node_environment, "DATABASE_URL": url})
    assert code == os.EX_UNAVAILABLE
    assert "DATABASE_URL" in log
    assert '"nowhere" does not exist' in log
    assert "Traceback" not in log


async def test_without_a_url_and_without_the_embedded_servers_the_setting_is_named(tmp_path: Path) -> None:
    """As in the image, which has no package dev."""
    start = "import sys; sys.modules['dev'] = None; from service.__main__ import main; sys.exit(main(['migrate']))"
    for given, missing in (({}, "DATABASE_URL"), ({"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "REDIS_URL")):
        environment = {"ZAP_ENVIRONMENT": "development", "ZAP_DATA_DIR": str(tmp_path / "data"), **given}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", start), cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        assert process.returncode == os.EX_UNAVAILABLE
        assert said.decode().strip() == (
            f"{missing} is not set, and this installation has no embedded server (package dev): set {missing}"
        )
    assert not (tmp_path / "data").exists()


async def test_two_addresses_of_different_databases_are_refused(
    node_environment: dict[str, str], database_url: str
) -> None:
    other = urlsplit(database_url)._replace(path="/postgres").geturl()
    code, log = await refusal({**node_environment, "ZAP_WHATSAPP_DATABASE_URL": other})
    assert code == os.EX_UNAVAILABLE
    assert "ZAP_WHATSAPP_DATABASE_URL" in log
    assert "another database" in log
    assert "Traceback" not in log


async def test_another_node_secret_than_that_of_living_nodes_is_told_at_once(
    node_environment: dict[str, str], sql: Sql
) -> None:
    ours = {**node_environment, "ZAP_NODE_SECRET": "of-the-nodes-that-are-there", "ZAP_NODE_ID": "node-that-is-there"}
    theirs = {**node_environment, "ZAP_NODE_SECRET": "of-a-node-that-is-new-here"}
    async with ServiceProcess(ours):
        # As if it had been there for long: it is known by being alive.
        await sql.execute("UPDATE zap.node_secret SET used_at = '-infinity'")
        for other in (theirs, node_environment):
            code, log = await refusal(other)
            assert code == os.EX_UNAVAILABLE
            assert "ZAP_NODE_SECRET" in log
            assert "node-that-is-there" in log
            assert "Set it to the same value on all nodes" in log
            assert "Traceback" not in log
            assert "of-a" not in log
        async with ServiceProcess(ours):
            pass
    # With the last node that has it, a secret goes.
    await sql.execute("UPDATE zap.node_secret SET used_at = '-infinity'")
    async with ServiceProcess(theirs):
        code, log = await refusal(ours)
        assert code == os.EX_UNAVAILABLE


async def test_of_two_nodes_with_two_secrets_that_start_at_once_one_is_refused(
    node_environment: dict[str, str],
) -> None:
    nodes = [ServiceProcess({**node_environment, "ZAP_NODE_SECRET": f"{name}-of-one-node-alone"}) for name in "ab"]
    await asyncio.gather(*(node.start() for node in nodes))
    ready = await asyncio.gather(*(node.wait_ready() for node in nodes), return_exceptions=True)
    assert [type(one) for one in ready].count(RuntimeError) == 1
    assert sorted(await asyncio.gather(*(node.stop() for node in nodes))) == [0, os.EX_UNAVAILABLE]
    assert any("a node that has just started" in node.log() or "run on this database" in node.log() for node in nodes)


async def test_another_whatsapp_library_is_told_at_once(node_environment: dict[str, str], tmp_path: Path) -> None:
    """A node that started with it would lose messages."""
    neonize = AlteredNeonize(tmp_path)
    neonize.write(neonize.library.read_bytes().rindex(WHATSMEOW.encode()), b"v9")
    code, log = await refusal({**node_environment, **neonize.environment()})
    assert code == os.EX_UNAVAILABLE
    assert "it holds whatsmeow v0.0.0-" in log
    assert "neonize 0.5.2 has another whatsmeow than this release was built for" in log
    assert "Install neonize==0.5.2" in log
    assert "Traceback" not in log


async def test_a_database_that_is_not_there_yet_is_waited_for(
    node_environment: dict[str, str], database_url: str
) -> None:
    port = free_port()
    node = ServiceProcess({**node_environment, "DATABASE_URL": with_netloc(database_url, port=port)})
    await node.start()
    await eventually(lambda: "No database answers yet" in node.log(), timeout=20)
    assert "DATABASE_URL" in node.log()
    assert f"127.0.0.1:{port}" in node.log()
    async with TcpProxy(database_url, port):
        await node.wait_ready()
        assert await node.stop() == 0
    assert "Traceback" not in node.log()


async def test_a_node_that_waits_for_its_database_stops_when_asked(
    node_environment: dict[str, str], database_url: str
) -> None:
    node = ServiceProcess({**node_environment, "DATABASE_URL": with_netloc(database_url, port=free_port())})
    await node.start()
    await eventually(lambda: "No database answers yet" in node.log(), timeout=20)
    assert await node.stop(timeout=5) == 0
    assert "Traceback" not in node.log()


async def test_two_nodes_start_at_once_on_an_empty_database(
    node_environment: dict[str, str],
    simulator: SimulatorControl,
    postgres_server: EmbeddedPostgres,
    postgres_admin: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    """One of them makes the tables, whatsmeow's as well; the other one finds them."""
    await postgres_admin.execute("CREATE DATABASE nobody_was_here")
    environment = {
        **node_environment,
        "DATABASE_URL": postgres_server.url_of("nobody_was_here"),
        "ZAP_NODE_SECRET": "of-both-nodes-of-this-test",
    }
    nodes = [ServiceProcess({**environment, "ZAP_NODE_ID": f"node-{number}"}) for number in range(2)]
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        await asyncio.gather(*(node.wait_ready() for node in nodes))
        for number, node in enumerate(nodes):
            await pair(node, simulator, f"s{number}", await new_phone(simulator, f"Owner {number}"))
        owners = {(await nodes[0].status(name)).owner.node for name in ("s0", "s1")}
        assert len(owners) == 2, "each node owns one"
        applied = sum(node.log().count("Applied a migration.") for node in nodes)
        assert applied == await applied_in(environment["DATABASE_URL"])
        assert all("Traceback" not in node.log() for node in nodes)
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))
        await postgres_admin.execute("DROP DATABASE nobody_was_here WITH (FORCE)")


async def applied_in(url: str) -> int:
    """How many migrations a database says were applied."""
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM zap.schema_migration"))
    finally:
        await connection.close()


async def test_a_node_without_redis_is_slower_not_wrong(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    phone = await new_phone(simulator, "Anna")
    async with ServiceProcess({**node_environment, "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}) as node:
        await node.create("anna")
        viewer = asyncio.create_task(node.outcome("anna"))
        await simulator.scan(phone, await node.first_code("anna"))
        await viewer
        await node.wait_state("anna", State.STATE_CONNECTED)
        assert "REDIS_URL" in node.log()
        assert "Traceback" not in node.log()


async def test_a_redis_url_with_nonsense_in_it_is_named(node_environment: dict[str, str]) -> None:
    code, log = await refusal({**node_environment, "REDIS_URL": "redis://127.0.0.1:6379/0?socket_timeout=soon"})
    assert code == os.EX_UNAVAILABLE
    assert "REDIS_URL" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("setting", ["ZAP_LISTEN", "ZAP_HTTP_LISTEN"])
async def test_a_port_that_somebody_else_has_is_named(node_environment: dict[str, str], setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, log = await refusal({**node_environment, setting: f"127.0.0.1:{taken.getsockname()[1]}"})
    assert code == os.EX_UNAVAILABLE
    assert setting in log
    assert "Traceback" not in log


async def test_a_wrong_setting_is_named(node_environment: dict[str, str]) -> None:
    code, log = await refusal({**node_environment, "ZAP_LEASE_TTL": "0.2", "ZAP_LISTEN": "0.0.0.0:50051"})
    assert code == os.EX_CONFIG
    assert "ZAP_LEASE_TTL" in log
    assert "ZAP_AUTH_TOKEN" in log
    assert "Traceback" not in log


async def test_a_migration_that_is_asked_to_stop_says_that_it_did_nothing(node_environment: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "migrate"),
        cwd=ROOT,
        env={
            **os.environ,
            **node_environment,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'generated'}",
            "ZAP_ENVIRONMENT": "test",
            "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/nowhere",
        },
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    await process.stderr.readuntil(b"No database answers yet")
    process.terminate()
    _, words = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == os.EX_UNAVAILABLE
    assert b"before the schema was brought up to date" in words
