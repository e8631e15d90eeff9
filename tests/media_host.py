"""WhatsApp's media host for tests: TLS and HTTP behind proxies of every kind that a session can have."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from simulator.certificates import CertificateAuthority


@dataclass
class MediaHost:
    """Answers each GET with what a test says; every proxy of it leads here."""

    authority: CertificateAuthority = field(default_factory=CertificateAuthority)
    bodies: dict[str, bytes] = field(default_factory=dict)
    """Bodies by their path without its query."""
    statuses: list[int] = field(default_factory=list)
    """Statuses of the next answers; 200 or 404 after that."""
    headers: list[str] = field(default_factory=list)
    """Further header lines."""
    cut_after: int | None = None
    """Hang up after so many bytes of a body."""
    states_length: bool = True
    requests: list[str] = field(default_factory=list)
    """Heads of the requests."""
    uploads: list[tuple[str, bytes]] = field(default_factory=list)
    """Target and body of each upload."""
    drops_uploads: bool = False
    """Hang up after an upload, without an answer."""
    tunnels: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    refuses: bool = False
    """Refuse tunnels."""
    silent: bool = False
    """Never answer a request."""
    port: int = 0

    @property
    def context(self) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts this host."""
        return ssl.create_default_context(cadata=self.authority.pem.decode())

    async def tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve in a tunnel that is established."""
        await writer.start_tls(self.authority.server_context())
        await self.serve(reader, writer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        if self.silent:
            await asyncio.Event().wait()
        method, target = head.split()[:2]
        if method == "POST":
            await self._store(target, head, reader, writer)
            return
        path = target.partition("?")[0]
        body = self.bodies.get(path)
        status = self.statuses.pop(0) if self.statuses else (200 if body is not None else 404)
        body = body or b"" if status == 200 else b"no"
        lines = [
            f"HTTP/1.1 {status} X",
            *self.headers,
            *([f"Content-Length: {len(body)}"] if self.states_length else []),
        ]
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        writer.write(body if self.cut_after is None else body[: self.cut_after])
        await writer.drain()

    async def _store(self, target: str, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take an upload, and name its path."""
        length = next(
            line.partition(":")[2] for line in head.splitlines() if line.lower().startswith("content-length:")
        )
        body = await reader.readexactly(int(length))
        self.uploads.append((target, body))
        if self.drops_uploads:
            return
        path = f"/v/t62.7118-24/{len(self.uploads)}_n.enc"
        self.bodies[path] = body
        status = self.statuses.pop(0) if self.statuses else 200
        answer = json.dumps({"url": "", "direct_path": f"{path}?ccb=11-4&oh=1", "handle": "h", "object_id": "1"})
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode())
        await writer.drain()

    async def http_proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.tunnels.append(head.split()[1])
        self.logins += [line.partition(": ")[2] for line in head.splitlines() if line.startswith("Proxy-Auth")]
        if self.refuses:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await self.tls(reader, writer)

    async def socks_proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = await reader.readexactly((await reader.readexactly(2))[1])
        writer.write(b"\x05\x02" if 2 in methods else b"\x05\x00")
        if 2 in methods:
            user = await reader.readexactly((await reader.readexactly(2))[1])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            self.logins.append(f"{user.decode()}:{password.decode()}")
            writer.write(b"\x01\x00")
        assert await reader.readexactly(4) == b"\x05\x01\x00\x03"
        host = await reader.readexactly((await reader.readexactly(1))[0])
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.tunnels.append(f"{host.decode()}:{port}")
        if self.refuses:
            writer.write(b"\x05\x02\x00\x01" + bytes(6))
            return
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await self.tls(reader, writer)

    @asynccontextmanager
    async def listening(self, scheme: str = "http") -> AsyncIterator[str]:
        """Listen as a proxy of this kind; yield its address, without a scheme."""
        serve = self.socks_proxy if scheme.startswith("socks") else self.http_proxy

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await serve(reader, writer)
            writer.close()

        tls = self.authority.server_context() if scheme == "https" else None
        server = await asyncio.start_server(accept, "localhost", 0, ssl=tls)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield f"localhost:{self.port}"
