"""TLS in front of a Postgres that has none: a self-made certificate, and a terminator that speaks the first bytes."""

import asyncio
import contextlib
import datetime
import ssl
import struct
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class Certificate:
    """For 127.0.0.1, signed by itself: who connects with sslmode=require does not ask who signed."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .sign(key, hashes.SHA256())
        )
        self._key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._chain = certificate.public_bytes(Encoding.PEM)

    def paths(self, folder: Path) -> tuple[Path, Path]:
        """Where the key and the certificate are, once written."""
        return folder / "server.key", folder / "server.crt"

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both as programs want them, the key for its owner alone."""
        key, chain = self.paths(folder)
        key.touch(mode=0o600)
        key.write_bytes(self._key)
        chain.write_bytes(self._chain)
        return key, chain

    def context(self) -> ssl.SSLContext:
        """For a server of ours."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory(prefix="zap-tls-") as folder:  # ssl takes keys from files only
            key, chain = self.write(Path(folder))
            context.load_cert_chain(chain, key)
        return context


class TlsTerminator:
    """`async with TlsTerminator(url, certificate) as terminator:` listens, asks for TLS, and passes on what is inside.

    As close to a server's own TLS as a process in front of it can be: when the server refuses or goes away, the client
    is refused or cut. A client that does not ask for TLS is turned away.
    """

    def __init__(self, url: str, certificate: Certificate) -> None:
        self._there = urlsplit(url)
        self._context = certificate.context()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """The server's URL by way of this terminator."""
        if self._server is None:
            raise RuntimeError("the terminator is not open")
        port = self._server.sockets[0].getsockname()[1]
        user = f"{self._there.username}:{self._there.password}@"
        return self._there._replace(netloc=f"{user}127.0.0.1:{port}", query="sslmode=require").geturl()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            there_reader, there_writer = await asyncio.open_connection(self._there.hostname, self._there.port)
        except OSError:
            self._cut(writer)
            return
        self._open.add(there_writer)
        try:
            if await reader.readexactly(len(_SSL_REQUEST)) == _SSL_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._context)
                await asyncio.gather(self._pass(reader, there_writer), self._pass(there_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            # The client left in the middle of it.
            pass
        finally:
            self._cut(writer)
            self._cut(there_writer)

    def _cut(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        # An end on one side is an end on the other: what was sent before it is still delivered.
        with contextlib.suppress(OSError, RuntimeError):
            writer.close()
