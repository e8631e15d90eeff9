"""A TCP proxy that can be cut, silenced and opened again: partitions for tests."""

import asyncio
import contextlib
import enum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Line(enum.Enum):
    """What becomes of what is sent."""

    OPEN = "everything passes"
    CUT = "connections are reset, new ones are refused"
    SILENT = "connections stay, nothing passes"


class TcpProxy:
    """`async with TcpProxy(url) as proxy:` listens on a port of its own and passes all on to the URL's server."""

    def __init__(self, url: str, port: int = 0) -> None:
        self._url = urlsplit(url)
        self.port = port
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.set(Line.OPEN)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.set(Line.CUT)

    @property
    def url(self) -> str:
        """The URL by way of this proxy."""
        user = f"{self._url.username}:{self._url.password}@" if self._url.username else ""
        return self._url._replace(netloc=f"{user}127.0.0.1:{self.port}").geturl()

    async def set(self, line: Line) -> None:
        """From now on, for connections that there are as well."""
        if line is Line.CUT:
            await self._cut()
            return
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        if line is Line.OPEN:
            self._passing.set()
        else:
            self._passing.clear()

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        self._passing.set()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(self._url.hostname, self._url.port)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(self._pass(reader, there_writer), self._pass(there_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65536):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            writer.transport.abort()
        finally:
            self._writers.discard(writer)
            with contextlib.suppress(RuntimeError):
                writer.close()
