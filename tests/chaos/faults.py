"""The outages: what each does to an estate, and how it ends."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from tests.chaos.estate import Estate, Way
from tests.scenarios.faults import Fault, Outage, disturbed
from tests.tcp_proxy import Line, TcpProxy

Lines = Callable[[Estate], list[TcpProxy]]

_PATIENCE = 10.0
#: Backends by the application_name that the service gives them.
_OF_SESSIONS, _OF_NODE = "zap/%", "zap-service/%"


@dataclass(frozen=True)
class DatabaseFault(Fault[Estate]):
    """A row of the table."""

    back_within: float = 3.0
    """Seconds from the database's first answer in which all sessions must be back: design 5b, unless said otherwise."""


def _stopped(number: signal.Signals) -> Outage[Estate]:
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


def _backend(of: str, *, terminated: bool) -> Outage[Estate]:
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


def _line(state: Line, lines: Lines) -> Outage[Estate]:
    def outage(estate: Estate) -> AbstractAsyncContextManager[None]:
        return disturbed(lines(estate), state)

    return outage


_KEYS = b"INSERT INTO whatsmeow_sessions"


def _answer_lost(to: bytes) -> Outage[Estate]:
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


FAULTS: Mapping[Way, Sequence[DatabaseFault]] = {
    Way.DIRECT: (
        DatabaseFault("stopped immediately", _stopped(signal.SIGQUIT)),
        DatabaseFault("stopped fast", _stopped(signal.SIGINT)),
        DatabaseFault("hung", _hung),
        DatabaseFault("kill -9 of a session's backend", _backend(_OF_SESSIONS, terminated=False), lasts=0),
        DatabaseFault("kill -9 of a node's backend", _backend(_OF_NODE, terminated=False), lasts=0),
        DatabaseFault("a session's backend terminated", _backend(_OF_SESSIONS, terminated=True), lasts=0),
        # Others are answered, and what is locked is all that a message needs: its process is replaced again and again.
        DatabaseFault("keys locked", _keys_locked, back_within=20.0),
    ),
    Way.SMALL_DISK: (
        # Others are answered, and what cannot be written is all that a message needs.
        DatabaseFault("disk full", _disk_full, back_within=20.0),
    ),
    Way.LINES: (
        DatabaseFault("silent to all", _line(Line.SILENT, _both)),
        DatabaseFault("silent to sessions", _line(Line.SILENT, _sessions)),
        DatabaseFault("silent to the node", _line(Line.SILENT, _node)),
        DatabaseFault("cut off from all", _line(Line.CUT, _both)),
        DatabaseFault("cut off from sessions", _line(Line.CUT, _sessions)),
        DatabaseFault("cut off from the node", _line(Line.CUT, _node)),
        DatabaseFault("closed to new connections", _line(Line.CLOSED, _both)),
        # As by a firewall that was restarted. Nobody can tell it from a slow query, so the silence has to last.
        DatabaseFault("forgot all connections", _line(Line.FORGOTTEN, _both), lasts=0, back_within=20.0),
    ),
    Way.PGBOUNCER: (
        DatabaseFault("PgBouncer away", _bouncer_away),
        DatabaseFault("cut off from PgBouncer", _line(Line.CUT, _behind)),
        DatabaseFault("silent to PgBouncer", _line(Line.SILENT, _behind)),
        DatabaseFault("stopped behind PgBouncer", _stopped(signal.SIGQUIT)),
        # What the library writes for each message, in this order: how far the conversation's keys have moved, and the
        # message's secret. Then it tells of the message.
        DatabaseFault("answer about keys lost", _answer_lost(_KEYS), lasts=0),
        DatabaseFault("answer about a secret lost", _answer_lost(b"INTO whatsmeow_message_secrets"), lasts=0),
        DatabaseFault("answer about keys lost, then cut", _answer_lost_and_cut),
    ),
}
"""By the kind of estate on which they can be had."""
