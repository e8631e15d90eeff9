"""Opens TLS connections to WhatsApp's media hosts: directly, or through an HTTP or SOCKS5 proxy.

The proxy resolves the host's name, as for the session's own connection.
"""

import asyncio
import base64
import ssl
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

PORT = 443
BUFFER_BYTES = 128 * 1024
"""Bytes that a connection reads ahead, before it stops reading."""
_MAX_PROXY_HEADER_BYTES = 16 * 1024
_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
"""Ports of proxies of the environment that name none."""
_SOCKS_ERRORS = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
}


class ConnectFailed(Exception):
    """The host was not reached; the message says why, without user and password of the proxy."""


@dataclass(frozen=True)
class HostConnection:
    """Reads from and writes to a host."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


def proxy_for(host: str, of_session: str) -> str:
    """Return the proxy for a host: the session's, or else that of the environment, as for the session's process."""
    if of_session:
        return of_session
    if urllib.request.proxy_bypass_environment(host):  # type: ignore[attr-defined]
        return ""
    return urllib.request.getproxies_environment().get("https", "")


@asynccontextmanager
async def connect(host: str, proxy_url: str, context: ssl.SSLContext, timeout: float) -> AsyncIterator[HostConnection]:
    """Connect to a host within `timeout` seconds. Raise ConnectFailed."""
    writer: asyncio.StreamWriter | None = None
    try:
        try:
            async with asyncio.timeout(timeout):
                proxy = urlsplit(proxy_url) if proxy_url else None
                reader, writer = await _first_hop(host, proxy, context)
                if proxy is not None:
                    await _pass_proxy(proxy, host, reader, writer)
                    await writer.start_tls(context, server_hostname=host)
        except TimeoutError as error:
            raise ConnectFailed(f"no connection within {timeout:g} s") from error
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, KeyError) as error:
            raise ConnectFailed(f"{type(error).__name__}: {error}") from error
        yield HostConnection(reader, writer)
    finally:
        if writer is not None:
            # Not a graceful close of TLS: the other side may have stopped reading.
            writer.transport.abort()


async def _first_hop(
    host: str, proxy: SplitResult | None, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if proxy is None:
        return await asyncio.open_connection(host, PORT, ssl=context, limit=BUFFER_BYTES)
    tls = context if proxy.scheme.lower() == "https" else None
    port = proxy.port or _DEFAULT_PORTS[proxy.scheme.lower()]
    return await asyncio.open_connection(proxy.hostname, port, ssl=tls, limit=BUFFER_BYTES)


async def _pass_proxy(
    proxy: SplitResult, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    if proxy.scheme.lower().startswith("socks5"):
        await _socks(proxy, host, reader, writer)
    else:
        await _http_connect(proxy, host, reader, writer)


async def _http_connect(
    proxy: SplitResult, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    lines = [f"CONNECT {host}:{PORT} HTTP/1.1", f"Host: {host}:{PORT}"]
    if proxy.username is not None:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(login).decode()}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    if len(answer) > _MAX_PROXY_HEADER_BYTES:
        raise ConnectFailed("the proxy's answer is too long")
    status = answer.partition(b"\r\n")[0].split(maxsplit=2)
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or status[1] != b"200":
        shown = status[1].decode("ascii", "replace")[:3] if len(status) > 1 else "no HTTP status"
        raise ConnectFailed(f"the proxy refused the connection: {shown}")


async def _socks(proxy: SplitResult, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask a SOCKS5 proxy for a connection (RFC 1928, RFC 1929)."""
    methods = b"\x00\x02" if proxy.username is not None else b"\x00"
    writer.write(bytes([5, len(methods)]) + methods)
    version, method = await reader.readexactly(2)
    if version != 5 or method not in methods:
        raise ConnectFailed("the SOCKS5 proxy accepts no login that the session has")
    if method == 2:
        user, password = unquote(proxy.username or "").encode(), unquote(proxy.password or "").encode()
        writer.write(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if (await reader.readexactly(2))[1] != 0:
            raise ConnectFailed("the SOCKS5 proxy refused the login")
    name = host.encode("ascii")
    writer.write(bytes([5, 1, 0, 3, len(name)]) + name + PORT.to_bytes(2, "big"))
    _, code, _, kind = await reader.readexactly(4)
    if code != 0:
        raise ConnectFailed(f"the SOCKS5 proxy refused the connection: {_SOCKS_ERRORS.get(code, code)}")
    address = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
    await reader.readexactly(address + 2)
