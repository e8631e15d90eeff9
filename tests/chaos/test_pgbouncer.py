"""The stand-in for PgBouncer does what the real one does, as far as its clients can see when something goes wrong."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.chaos.pgbouncer import PgBouncer, pgbouncer_program
from tests.chaos.pgbouncer_stand_in import CRASHED, FAILING, StandIn
from tests.chaos.postgres import Postgres
from tests.chaos.postgres_wire import Connected, Frame, connect, error_of, query, read_frame
from tests.tcp_proxy import Line, TcpProxy

_SILENCE = 0.5
_PATIENCE = 10.0
_END = Frame(b"", b"")


@dataclass(frozen=True)
class Scene:
    server: Postgres
    line: TcpProxy
    bouncer: PgBouncer | StandIn

    async def client(self) -> Connected:
        async with asyncio.timeout(_PATIENCE):
            return await connect(urlsplit(self.bouncer.url))

    async def busy_client(self) -> Connected:
        client = await self.client()
        client.writer.write(query("BEGIN"))
        assert (await last_of_answer(client)).kind == b"Z"
        return client


@pytest.fixture(scope="module", params=["stand-in", "pgbouncer"])
async def scene(request: pytest.FixtureRequest, server_folder: Path) -> AsyncIterator[Scene]:
    program = pgbouncer_program()
    if request.param == "pgbouncer" and program is None:
        pytest.skip("there is no PgBouncer on this machine: the stand-in is not compared with it")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Postgres(server_folder))
        line = await stack.enter_async_context(TcpProxy(server.url))
        real = PgBouncer(server_folder, program, line.url) if request.param == "pgbouncer" and program else None
        yield Scene(server, line, await stack.enter_async_context(real or StandIn(line.url)))


async def last_of_answer(client: Connected, patience: float = _PATIENCE) -> Frame:
    """ReadyForQuery, or an error that means it; `_END` at the end of the connection."""
    async with asyncio.timeout(patience):
        while True:
            try:
                frame = await read_frame(client.reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                return _END
            if frame.kind in {b"Z", b"E"}:
                return frame


async def errors_of(client: Connected) -> list[tuple[str, str, str]]:
    """Every error until the end of the connection."""
    errors = []
    while (frame := await last_of_answer(client)) != _END:
        errors.append(error_of(frame).words)
    return errors


async def hears_nothing(client: Connected) -> bool:
    try:
        await last_of_answer(client, _SILENCE)
    except TimeoutError:
        return True
    return False


async def test_a_query_is_answered(scene: Scene) -> None:
    client = await scene.client()
    client.writer.write(query("SELECT 1"))
    assert await last_of_answer(client) == Frame(b"Z", b"I")


async def test_in_a_transaction_the_loss_of_a_server_is_an_error_and_the_end(scene: Scene) -> None:
    client = await scene.busy_client()
    await scene.line.set(Line.CUT)
    assert await errors_of(client) == [CRASHED.words]
    await scene.line.set(Line.OPEN)


async def test_a_server_that_stops_has_its_last_word_passed_on(scene: Scene) -> None:
    client = await scene.busy_client()
    await scene.server.stop(signal.SIGINT)
    farewell = ("FATAL", "57P01", "terminating connection due to administrator command")
    assert await errors_of(client) == [farewell, CRASHED.words]
    await scene.server.start()


async def test_idle_clients_stay_and_the_first_to_ask_waits_while_the_others_are_refused(scene: Scene) -> None:
    first, second = await scene.client(), await scene.client()
    first.writer.write(query("SELECT 1"))
    await last_of_answer(first)
    await scene.line.set(Line.CUT)
    assert await hears_nothing(first)
    first.writer.write(query("SELECT 1"))
    assert await hears_nothing(first)
    second.writer.write(query("SELECT 1"))
    assert await errors_of(second) == [FAILING.words]
    await scene.line.set(Line.OPEN)
    assert await last_of_answer(first) == Frame(b"Z", b"I")


async def test_a_restart_ends_every_client_without_a_word_and_refuses_new_ones_meanwhile(scene: Scene) -> None:
    idle, busy = await scene.client(), await scene.busy_client()
    await scene.bouncer.stop()
    assert (await errors_of(idle), await errors_of(busy)) == ([], [])
    with pytest.raises(ConnectionRefusedError):
        await scene.client()
    await scene.bouncer.start()
    client = await scene.client()
    client.writer.write(query("SELECT 1"))
    assert await last_of_answer(client) == Frame(b"Z", b"I")


async def test_right_after_a_start_who_logs_in_waits_for_a_server(scene: Scene) -> None:
    await scene.bouncer.stop()
    await scene.line.set(Line.CUT)
    await scene.bouncer.start()
    connecting = asyncio.create_task(scene.client())
    done, _ = await asyncio.wait([connecting], timeout=_SILENCE)
    assert not done
    await scene.line.set(Line.OPEN)
    client = await connecting
    client.writer.write(query("SELECT 1"))
    assert await last_of_answer(client) == Frame(b"Z", b"I")
