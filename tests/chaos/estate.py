"""A database and the ways to it: the node's and the session processes', each of which can be disturbed by itself."""

import enum
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos.pgbouncer import PgBouncer, pgbouncer_program
from tests.chaos.pgbouncer_stand_in import StandIn
from tests.chaos.postgres import Postgres, debian_programs
from tests.chaos.small_disk import can_mount
from tests.chaos.tls import Certificate, TlsTerminator
from tests.tcp_proxy import TcpProxy


class Way(enum.Enum):
    """How the database is reached."""

    DIRECT = "directly"
    LINES = "by lines that can be cut, one for the node and one for the session processes"
    SMALL_DISK = "directly, on a disk that can be full"
    PGBOUNCER = "the session processes by way of PgBouncer, the node directly"


@dataclass(frozen=True)
class Tools:
    """Programs of this machine; where one is missing, what stands in for it is used."""

    postgres_with_tls: Path | None = None
    pgbouncer: Path | None = None
    has_small_disk: bool = False
    """A disk can be mounted; nothing stands in for it."""

    @staticmethod
    def of_this_machine() -> "Tools":
        """All that are installed."""
        return Tools(debian_programs(), pgbouncer_program(), can_mount())

    @property
    def ways(self) -> list[Way]:
        """What can be had with them."""
        return [way for way in Way if way is not Way.SMALL_DISK or self.has_small_disk]

    def missing(self) -> list[str]:
        """What a run with these cannot say, in sentences."""
        sentences = []
        if self.postgres_with_tls is None:
            sentences.append(
                "Debian's Postgres is not installed (apt-get install postgresql): the embedded one has no TLS, so a"
                " terminator in front of it stands in for a server's own TLS."
            )
        if self.pgbouncer is None:
            sentences.append("PgBouncer is not installed (apt-get install pgbouncer): a stand-in takes its place.")
        if not self.has_small_disk:
            sentences.append("This process may not mount a file system: no disk is full.")
        return sentences


class Estate:
    """`async with Estate(...) as estate:` has a server, and two addresses of one database.

    `node_url` is DATABASE_URL, `session_url` is ZAP_WHATSAPP_DATABASE_URL.
    """

    def __init__(self, folder: Path, way: Way, *, tls: bool, tools: Tools) -> None:
        self.way = way
        self.tls = tls
        self._folder = folder
        self._tools = tools
        self._certificate = Certificate() if tls else None
        self._stack = AsyncExitStack()
        self.server: Postgres
        self.node_line: TcpProxy
        self.session_line: TcpProxy
        self.bouncer: PgBouncer | StandIn
        self.bouncer_line: TcpProxy
        """From PgBouncer to the server."""
        self.node_url = self.session_url = ""

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        enter = self._stack.enter_async_context
        programs = self._tools.postgres_with_tls if self.tls else None
        # Behind PgBouncer a server is reached without TLS: what its clients see of TLS is PgBouncer's.
        own_tls = self._certificate if programs and self.way is not Way.PGBOUNCER else None
        is_small = self.way is Way.SMALL_DISK
        self.server = await enter(Postgres(self._folder, programs, own_tls, has_small_disk=is_small))
        if self.way in (Way.DIRECT, Way.SMALL_DISK):
            self.node_url = self.session_url = await self._with_tls(self.server.url, has_it=own_tls is not None)
        elif self.way is Way.LINES:
            inside = await self._with_tls(self.server.url, has_it=own_tls is not None)
            self.node_line = await enter(TcpProxy(inside))
            self.session_line = await enter(TcpProxy(inside))
            self.node_url, self.session_url = self.node_line.url, self.session_line.url
        else:
            self.bouncer_line = await enter(TcpProxy(self.server.url))
            self.node_url, self.session_url = self.server.url, await self._open_bouncer()

    async def _open_bouncer(self) -> str:
        enter, there = self._stack.enter_async_context, self.bouncer_line.url
        if self._tools.pgbouncer is not None:
            self.bouncer = await enter(PgBouncer(self._folder, self._tools.pgbouncer, there, self._certificate))
            return self.bouncer.url
        self.bouncer = await enter(StandIn(there))
        return await self._with_tls(self.bouncer.url, has_it=False)

    async def _with_tls(self, url: str, *, has_it: bool) -> str:
        if self._certificate is None or has_it:
            return url
        return (await self._stack.enter_async_context(TlsTerminator(url, self._certificate))).url
