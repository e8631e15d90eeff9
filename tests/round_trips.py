"""Counts how often a client of a server waits for an answer."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class RoundTrips:
    """`async with RoundTrips(url) as line:` passes all on from `line.url` to the URL's server, and counts.

    A round trip is something that the client says after the server has. What a client says in several pieces without
    waiting is one.
    """

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self.count = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.close()

    @property
    def url(self) -> str:
        """The URL by way of this line."""
        user, at, _ = self._url.netloc.rpartition("@")
        return self._url._replace(netloc=f"{user}{at}127.0.0.1:{self._port}").geturl()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._url.hostname, self._url.port)
        self._writers |= {writer, server_writer}
        is_clients_turn = True

        async def ask() -> None:
            nonlocal is_clients_turn
            while data := await reader.read(65536):
                self.count += is_clients_turn
                is_clients_turn = False
                server_writer.write(data)
            server_writer.close()

        async def answer() -> None:
            nonlocal is_clients_turn
            while data := await server_reader.read(65536):
                is_clients_turn = True
                writer.write(data)
            writer.close()

        with contextlib.suppress(ConnectionError):
            await asyncio.gather(ask(), answer())
        self._writers -= {writer, server_writer}
