"""TLS in front of a Postgres that has none: answers libpq's SSLRequest, shakes hands, and passes the rest on."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import select
import socket
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from tests.fakes.postgres_messages import SSL_REQUEST


class Authority:
    """Signs certificates, for servers and clients, into files of a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name(name)
        certificate = (
            _builder(self._subject, self._subject, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.last_number = 0
        """Of the last certificate that was issued."""
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, password: str = "") -> tuple[Path, Path, int]:
        """Certificate and key for a host name or address, and the certificate's number."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(name), self._subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.last_number = number = certificate.serial_number
        certificate_file, key_file = self._folder / f"{number}.crt", self._folder / f"{number}.key"
        certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        locked: KeySerializationEncryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
        return certificate_file, key_file, number

    def revoke(self, *numbers: int) -> Path:
        """A list of these as revoked."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._subject)
            .last_update(now - datetime.timedelta(hours=1))
            .next_update(now + datetime.timedelta(days=1))
        )
        for number in numbers:
            revoked = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
            builder = builder.add_revoked_certificate(revoked)
        file = self._folder / "revoked.pem"
        file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return file

    def server_context(self, name: str, clients: Path | None = None) -> ssl.SSLContext:
        """For a server of this name; `clients`: who signs the certificates that it wants of them."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate, key, _ = self.issue(name)
        context.load_cert_chain(certificate, key)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients)
        return context


class TlsTerminator:
    """`with TlsTerminator(port, context) as terminator:` listens on a port of its own of 127.0.0.1."""

    def __init__(self, behind: int, context: ssl.SSLContext | None, *, direct: bool = False) -> None:
        """`behind`: the port of Postgres. Without a context it declines. `direct`: TLS comes first, unasked."""
        self._behind = behind
        self._context = context
        self._direct = direct
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.encrypted = self.plain = 0
        """Connections on which something was said, by kind."""
        self.names: list[str | None] = []
        """Which name of it clients asked for."""
        if context is not None:
            context.sni_callback = lambda _, name, __: self.names.append(name)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing it alone does not wake up who waits for a connection. Those that are open end with their ends.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            first = connection.recv(len(SSL_REQUEST), socket.MSG_PEEK)
            if self._context is None or (first != SSL_REQUEST and not self._direct):
                if first == SSL_REQUEST:
                    connection.recv(len(SSL_REQUEST))
                    connection.sendall(b"N")
                self._forward(connection)
                return
            if not self._direct:
                connection.recv(len(SSL_REQUEST))
                connection.sendall(b"S")
            with self._context.wrap_socket(connection, server_side=True) as encrypted:
                self._forward(encrypted)

    def _forward(self, connection: socket.socket) -> None:
        """In one thread: a TLS socket is not for two at once."""
        with socket.create_connection(("127.0.0.1", self._behind)) as server:
            has_spoken = False
            while True:
                pending = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
                readable = [connection] if pending else select.select([connection, server], [], [])[0]
                for source in readable:
                    if not (data := source.recv(65536)):
                        return
                    (server if source is connection else connection).sendall(data)
                    if not has_spoken:
                        has_spoken = True
                        self._count(connection)

    def _count(self, connection: socket.socket) -> None:
        if isinstance(connection, ssl.SSLSocket):
            self.encrypted += 1
        else:
            self.plain += 1


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )
