"""A TCP proxy that can be cut, silenced and opened again: partitions for tests."""

import asyncio
import contextlib
import enum
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Line(enum.Enum):
    """What becomes of what is sent."""

    OPEN = "everything passes"
    CUT = "connections are reset, new ones are refused"
    SILENT = "connections stay, nothing passes"
    CLOSED = "connections stay and everything passes, new ones are refused"
    FORGOTTEN = "nothing passes on the connections that there are, now or ever; new ones are as good as any"


class _Trap:
    """What is waited for, what becomes of the line then, and whether it came."""

    def __init__(self, said: bytes, line: Line) -> None:
        self.said = said
        self.line = line
        self.sprung = asyncio.Event()


class TcpProxy:
    """`async with TcpProxy(url) as proxy:` listens on a port of its own and passes all on to the URL's server."""

    def __init__(self, url: str, port: int = 0) -> None:
        self._url = urlsplit(url)
        self.port = port
        self._passing = asyncio.Event()
        self._passing.set()
        self._forgotten: list[asyncio.Event] = []
        self._trap: _Trap | None = None
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
        # As it is: Redis has passwords without users.
        user, at, _ = self._url.netloc.rpartition("@")
        return self._url._replace(netloc=f"{user}{at}127.0.0.1:{self.port}").geturl()

    async def set(self, line: Line) -> None:
        """From now on, for connections that there are as well."""
        if line is Line.CUT:
            await self._cut()
            return
        if line is Line.CLOSED:
            self._close()
            self._passing.set()
            return
        if line is Line.FORGOTTEN:
            self._forget()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        if line is Line.SILENT:
            self._passing.clear()
        else:
            self._passing.set()

    def cut_in_answer_to(self, said: bytes) -> asyncio.Event:
        """Cut the next connection whose client says this, in place of the answer. Set once it was said."""
        self._trap = _Trap(said, Line.CUT)
        return self._trap.sprung

    def fall_silent_at(self, said: bytes) -> asyncio.Event:
        """Be SILENT from the moment on in which the next client says this; it arrives when the line is OPEN again."""
        self._trap = _Trap(said, Line.SILENT)
        return self._trap.sprung

    def forget_in_answer_to(self, said: bytes) -> asyncio.Event:
        """Be FORGOTTEN when the next client has said this, in place of the answer. Set once it was said."""
        self._trap = _Trap(said, Line.FORGOTTEN)
        return self._trap.sprung

    def _forget(self) -> None:
        self._passing.clear()
        self._forgotten.append(self._passing)
        self._passing = asyncio.Event()
        self._passing.set()

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _cut(self) -> None:
        self._close()
        for writer in self._writers:
            writer.transport.abort()
        for passing in (self._passing, *self._forgotten):
            passing.set()
        self._forgotten.clear()
        await asyncio.sleep(0)

    async def _dial(self, caller: asyncio.StreamWriter) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The way onward of a connection that came in. Raises OSError."""
        return await asyncio.open_connection(self._url.hostname, self._url.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await self._dial(writer)
        except OSError:
            writer.transport.abort()
            return
        passing, caught = self._passing, list[Line]()
        await asyncio.gather(
            self._pass(reader, there_writer, passing, lambda data: self._catch(data, caught)),
            self._pass(there_reader, writer, passing, lambda _: self._answered(caught)),
        )

    def _catch(self, data: bytes, caught: list[Line]) -> bool:
        if self._trap is not None and self._trap.said in data:
            if self._trap.line is Line.SILENT:
                self._passing.clear()
            else:
                caught.append(self._trap.line)
            self._trap.sprung.set()
            self._trap = None
        return False

    def _answered(self, caught: list[Line]) -> bool:
        if Line.FORGOTTEN in caught:
            self._forget()
            caught.clear()
        return Line.CUT in caught

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        passing: asyncio.Event,
        is_last: Callable[[bytes], bool],
    ) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65536):
                ends = is_last(data)
                await passing.wait()
                if ends:
                    writer.transport.abort()
                    return
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            writer.transport.abort()
        finally:
            self._writers.discard(writer)
            with contextlib.suppress(RuntimeError):
                writer.close()
