"""What stands in for PgBouncer where there is none: it does as PgBouncer does at the moments that matter.

Seen on PgBouncer 1.18 (tests/chaos/test_pgbouncer.py holds both to it):

- A client that has a query or a transaction open when its server is lost gets the server's last words, then
  FATAL 08P01 "server conn crashed?", then the end.
- An idle client notices nothing. Its next query waits for a server if it is the first to ask since the loss; while
  logging in at the server fails, everybody else's is answered with FATAL 08P01 "server login has been failing, try
  again later (server_login_retry)". Who waits is served as soon as one of the retries succeeds.
- Before the first server was seen, who logs in waits.
- A restart closes every client without a word, and refuses connections while it lasts.

It lets everybody in without a password, gives each client a server of its own, and has no TLS.
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

CRASHED = ServerError("FATAL", "08P01", "server conn crashed?")
FAILING = ServerError("FATAL", "08P01", "server login has been failing, try again later (server_login_retry)")

_LET_IN = Frame(b"R", b"\0\0\0\0")
_READY = Frame(b"Z", b"I")
_TERMINATE = b"X"
_RETRY = 1.0
"""Seconds between two tries to log in at the server: server_login_retry."""


class StandIn:
    """`async with StandIn(url) as bouncer:` listens in front of the URL's server; it can be stopped and started."""

    def __init__(self, url: str) -> None:
        self._there = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._welcome: list[Frame] = []
        self._login_failed = False
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """The server's URL by way of it."""
        user = f"{self._there.username}:{self._there.password}@"
        return self._there._replace(netloc=f"{user}127.0.0.1:{self.port}", query="sslmode=disable").geturl()

    async def start(self) -> None:
        """Listen, on the same port each time, with nothing known of before."""
        self._welcome, self._login_failed = [], False
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As a restart does it: at once, whatever its clients are doing."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._clients):
            writer.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            # A client may go whenever it likes.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                name = await self._log_in(reader, writer)
                await _Client(self, reader, writer, name).serve()
        finally:
            self._clients.discard(writer)
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        while (first := await read_startup(reader)) == SSL_REQUEST:
            writer.write(b"N")
        name = startup_settings(first).get("application_name", "")
        if not self._welcome:
            # It waits as long as it takes, and looks at the server's own greeting first.
            server = await self.server_for(name, patiently=True)
            server.writer.close()
        for frame in (_LET_IN, *self._welcome, _READY):
            writer.write(frame.encoded())
        return name

    async def server_for(self, name: str, *, patiently: bool = False) -> Connected:
        """A server's connection for a client; raises FAILING if logging in fails, unless the client is the first."""
        if self._login_failed and not patiently:
            raise FAILING
        while True:
            try:
                server = await connect(self._there, application_name=name)
            except (OSError, asyncio.IncompleteReadError, ServerError):
                self._login_failed = True
                await asyncio.sleep(_RETRY)
            else:
                self._login_failed = False
                self._welcome = server.greeting
                return server


class _Client:
    """One client that has logged in."""

    def __init__(self, bouncer: StandIn, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        self._bouncer = bouncer
        self._reader = reader
        self._writer = writer
        self._name = name
        self._server: Connected | None = None
        self._listening: asyncio.Task[None] | None = None
        self._is_asking = False
        """It waits for an answer, or is in a transaction."""

    async def serve(self) -> None:
        """Until it leaves or is sent away."""
        try:
            while (frame := await read_frame(self._reader)).kind != _TERMINATE:
                self._is_asking = True
                if self._server is None:
                    await self._find_server()
                if self._server is not None:
                    self._server.writer.write(frame.encoded())
        except ServerError as error:
            self._send_away(error)
        finally:
            if self._listening is not None:
                self._listening.cancel()
            if self._server is not None:
                self._server.writer.close()

    async def _find_server(self) -> None:
        self._server = await self._bouncer.server_for(self._name)
        self._listening = asyncio.create_task(self._listen(self._server))

    async def _listen(self, server: Connected) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await read_frame(server.reader)
                if not self._is_asking:
                    continue  # A farewell to somebody who is not there.
                self._is_asking = frame != _READY
                self._writer.write(frame.encoded())
        self._server = None
        if self._is_asking:
            self._send_away(CRASHED)

    def _send_away(self, error: ServerError) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(error.frame().encoded())
            self._writer.close()
