"""The outages: what each does to an estate, and how it ends."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from tests.chaos.estate import Estate, Way
from tests.tcp_proxy import Line, TcpProxy

Outage = Callable[[Estate], AbstractAsyncContextManager[None]]
Lines = Callable[[Estate], list[TcpProxy]]

_PATIENCE = 10.0
#: Backends by the application_name that the service gives them.
_OF_SESSIONS, _OF_NODE = "zap/%", "zap-service/%"


@dataclass(frozen=True)
class Fault:
    """A kind of outage. While `outage(estate)` is entered, it lasts."""

    name: str
    way: Way
    outage: Outage
    lasts: bool = True
    """Whether it has a duration; otherwise it is over as soon as it has happened."""
    back_within: float = 3.0
    """Seconds from the database's first answer in which all sessions must be back: design 5b, unless said otherwise."""


def _stopped(number: signal.Signals) -> Outage:
    @asynccontextmanager
    async def outage(estate: Estate) -> AsyncIterator[None]:
        await estate.server.stop(number)
        try:
            yield
        finally:
            await estate.server.start()

    return outage


@asynccontextmanager
async def _hung(estate: Estate) -> AsyncIterator[None]:
    estate.server.freeze()
    try:
        yield
    finally:
        estate.server.thaw()


def _backend(of: str, *, terminated: bool) -> Outage:
    @asynccontextmanager
    async def outage(estate: Estate) -> AsyncIterator[None]:
        connection = await asyncpg.connect(estate.server.url)
        try:
            chosen = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE $1 ORDER BY random() LIMIT 1"
            if (pid := await connection.fetchval(chosen, of)) is None:
                raise RuntimeError(f"there is no backend of {of}")
            if terminated:
                await connection.execute("SELECT pg_terminate_backend($1)", pid)
            else:
                estate.server.kill_backend(pid)
        finally:
            connection.terminate()
        yield

    return outage


@asynccontextmanager
async def _keys_locked(estate: Estate) -> AsyncIterator[None]:
    """As by somebody's VACUUM FULL: what is asked waits, and is carried out in the end, whoever is there by then."""
    connection = await asyncpg.connect(estate.server.url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE whatsmeow_sessions IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        connection.terminate()


@asynccontextmanager
async def _disk_full(estate: Estate) -> AsyncIterator[None]:
    """Tables cannot grow, later the write-ahead log cannot either: then Postgres ends, and is started again."""
    if (disk := estate.server.disk) is None:
        raise RuntimeError("the server has no small disk")
    try:
        async with disk.full():
            yield
    finally:
        if estate.server.has_ended:
            await estate.server.start()


def _line(state: Line, lines: Lines) -> Outage:
    @asynccontextmanager
    async def outage(estate: Estate) -> AsyncIterator[None]:
        for line in lines(estate):
            await line.set(state)
        try:
            yield
        finally:
            for line in lines(estate):
                await line.set(Line.OPEN)

    return outage


_KEYS = b"INSERT INTO whatsmeow_sessions"


def _answer_lost(to: bytes) -> Outage:
    """The worst moment: it is done, and who asked for it cannot know."""

    @asynccontextmanager
    async def outage(estate: Estate) -> AsyncIterator[None]:
        async with asyncio.timeout(_PATIENCE):
            await estate.bouncer_line.cut_in_answer_to(to).wait()
        yield

    return outage


@asynccontextmanager
async def _answer_lost_and_cut(estate: Estate) -> AsyncIterator[None]:
    """The same, and what asked cannot ask again for a while."""
    async with asyncio.timeout(_PATIENCE):
        await estate.bouncer_line.cut_in_answer_to(_KEYS).wait()
    await estate.bouncer_line.set(Line.CUT)
    try:
        yield
    finally:
        await estate.bouncer_line.set(Line.OPEN)


@asynccontextmanager
async def _bouncer_away(estate: Estate) -> AsyncIterator[None]:
    await estate.bouncer.stop()
    try:
        yield
    finally:
        await estate.bouncer.start()


def _node(estate: Estate) -> list[TcpProxy]:
    return [estate.node_line]


def _sessions(estate: Estate) -> list[TcpProxy]:
    return [estate.session_line]


def _both(estate: Estate) -> list[TcpProxy]:
    return [estate.node_line, estate.session_line]


def _behind(estate: Estate) -> list[TcpProxy]:
    return [estate.bouncer_line]


FAULTS = (
    Fault("stopped immediately", Way.DIRECT, _stopped(signal.SIGQUIT)),
    Fault("stopped fast", Way.DIRECT, _stopped(signal.SIGINT)),
    Fault("hung", Way.DIRECT, _hung),
    Fault("kill -9 of a session's backend", Way.DIRECT, _backend(_OF_SESSIONS, terminated=False), lasts=False),
    Fault("kill -9 of a node's backend", Way.DIRECT, _backend(_OF_NODE, terminated=False), lasts=False),
    Fault("a session's backend terminated", Way.DIRECT, _backend(_OF_SESSIONS, terminated=True), lasts=False),
    # Others are answered, and what is locked is all that a message needs: its process is replaced again and again.
    Fault("keys locked", Way.DIRECT, _keys_locked, back_within=20.0),
    # Others are answered, and what cannot be written is all that a message needs.
    Fault("disk full", Way.SMALL_DISK, _disk_full, back_within=20.0),
    Fault("silent to all", Way.LINES, _line(Line.SILENT, _both)),
    Fault("silent to sessions", Way.LINES, _line(Line.SILENT, _sessions)),
    Fault("silent to the node", Way.LINES, _line(Line.SILENT, _node)),
    Fault("cut off from all", Way.LINES, _line(Line.CUT, _both)),
    Fault("cut off from sessions", Way.LINES, _line(Line.CUT, _sessions)),
    Fault("cut off from the node", Way.LINES, _line(Line.CUT, _node)),
    Fault("closed to new connections", Way.LINES, _line(Line.CLOSED, _both)),
    # As by a firewall that was restarted. Nobody can tell it from a slow query, so the silence has to last.
    Fault("forgot all connections", Way.LINES, _line(Line.FORGOTTEN, _both), lasts=False, back_within=20.0),
    Fault("PgBouncer away", Way.PGBOUNCER, _bouncer_away),
    Fault("cut off from PgBouncer", Way.PGBOUNCER, _line(Line.CUT, _behind)),
    Fault("silent to PgBouncer", Way.PGBOUNCER, _line(Line.SILENT, _behind)),
    Fault("stopped behind PgBouncer", Way.PGBOUNCER, _stopped(signal.SIGQUIT)),
    # What the library writes for each message, in this order: how far the conversation's keys have moved, and the
    # message's secret. Then it tells of the message.
    Fault("answer about keys lost", Way.PGBOUNCER, _answer_lost(_KEYS), lasts=False),
    Fault("answer about a secret lost", Way.PGBOUNCER, _answer_lost(b"INTO whatsmeow_message_secrets"), lasts=False),
    Fault("answer about keys lost, then cut", Way.PGBOUNCER, _answer_lost_and_cut),
)
