"""The strictest pooler in transaction mode: each transaction has a server's connection of its own.

What a client leaves in a connection (settings, prepared statements) is gone with the transaction, at once, where
PgBouncer would give it to somebody else some time. Settings that PgBouncer does not know are refused in its words.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.chaos.postgres_wire import (
    SSL_REQUEST,
    Connected,
    Frame,
    ServerError,
    connect,
    read_frame,
    read_startup,
    startup_settings,
)

_KNOWN = frozenset(
    {"user", "database", "application_name", "client_encoding", "datestyle", "timezone", "standard_conforming_strings"}
)
_TERMINATE = b"X"


class TransactionPooler:
    """`async with TransactionPooler(url) as pooler:` listens in front of the URL's server."""

    def __init__(self, url: str) -> None:
        self._there = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.transactions = 0
        """Or statements outside of one."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    @property
    def url(self) -> str:
        """The server's URL by way of it."""
        if self._server is None:
            raise RuntimeError("it does not listen")
        port = self._server.sockets[0].getsockname()[1]
        netloc = f"{self._there.username}:{self._there.password}@127.0.0.1:{port}"
        return self._there._replace(netloc=netloc, query="sslmode=disable").geturl()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        with (
            contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError),
            contextlib.closing(writer),
        ):
            if await self._log_in(reader, writer):
                while await self._transaction(reader, writer):
                    pass

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        while (first := await read_startup(reader)) == SSL_REQUEST:
            writer.write(b"N")
        for setting in sorted(startup_settings(first).keys() - _KNOWN):
            refusal = ServerError("FATAL", "08P01", f"unsupported startup parameter: {setting}")
            writer.write(refusal.frame().encoded())
            return False
        server = await connect(self._there)
        server.writer.close()
        for frame in (Frame(b"R", b"\0\0\0\0"), *server.greeting, Frame(b"Z", b"I")):
            writer.write(frame.encoded())
        return True

    async def _transaction(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """On a connection of its own; whether the client goes on."""
        request = await read_frame(reader)
        if request.kind == _TERMINATE:
            return False
        # Before anybody can have heard of it.
        self.transactions += 1
        server = await connect(self._there)
        with contextlib.closing(server.writer):
            server.writer.write(request.encoded())
            asking = asyncio.create_task(_pass_on(reader, server))
            try:
                await _answer(server, writer)
            finally:
                # No client says anything before it has heard that the server is ready: nothing is cut in two.
                asking.cancel()
                await asyncio.wait((asking,))
        return True


async def _pass_on(reader: asyncio.StreamReader, server: Connected) -> None:
    while True:
        server.writer.write((await read_frame(reader)).encoded())


async def _answer(server: Connected, writer: asyncio.StreamWriter) -> None:
    """Until the transaction is over."""
    while (frame := await read_frame(server.reader)) != Frame(b"Z", b"I"):
        writer.write(frame.encoded())
    writer.write(frame.encoded())
