"""The real PgBouncer, where there is one (Debian's package `pgbouncer`), pooling transactions in front of a server."""

import asyncio
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from dev.account import without_root
from dev.process import choose_port, end_of, launch
from tests.chaos.tls import Certificate
from tests.eventually import eventually

_START_SECONDS = 10.0
#: From 1.23 on, SIGTERM waits for the clients to leave.
_PATIENT_SINCE = (1, 23)


def pgbouncer_program() -> Path | None:
    """Where it is, if it is."""
    # Debian puts it where only root looks.
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


class PgBouncer:
    """`async with PgBouncer(folder, program, url) as bouncer:`; the folder must be open to other accounts."""

    def __init__(self, folder: Path, program: Path, url: str, certificate: Certificate | None = None) -> None:
        """`url`: of the server behind it. `certificate`: it has TLS, and clients use it."""
        self._account = without_root()
        self._folder = folder / f"pgbouncer-{secrets.token_hex(4)}"
        self._program = program
        self._there = urlsplit(url)
        self._certificate = certificate
        self._child: subprocess.Popen[bytes] | None = None
        self.port = choose_port(None)

    async def __aenter__(self) -> Self:
        self._configure()
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None and self._child.poll() is None:
            await self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """The server's URL by way of it."""
        user = f"{self._there.username}:{self._there.password}@"
        mode = "require" if self._certificate else "disable"
        return self._there._replace(netloc=f"{user}127.0.0.1:{self.port}", query=f"sslmode={mode}").geturl()

    async def start(self) -> None:
        """Start it, on its port, and return once it listens."""
        self._child = launch(
            [str(self._program), str(self._folder / "pgbouncer.ini")],
            account=self._account,
            directory=self._folder,
            log=self._folder / "pgbouncer.log",
            die_with_starter=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        while not await self._listens():
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PgBouncer did not start:\n{end_of(self._folder / 'pgbouncer.log')}")
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """As a restart does it: at once, whatever its clients are doing."""
        if self._child is None:
            raise RuntimeError("PgBouncer was never started")
        self._child.send_signal(signal.SIGQUIT if self.version() >= _PATIENT_SINCE else signal.SIGTERM)
        child = self._child
        await eventually(lambda: child.poll() is not None)

    def version(self) -> tuple[int, ...]:
        """Of the program."""
        words = subprocess.run([str(self._program), "--version"], check=True, capture_output=True, text=True).stdout
        return tuple(int(part) for part in words.split()[1].split("."))

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def _configure(self) -> None:
        self._folder.mkdir(mode=0o700)
        self._account.take(self._folder)
        there, database = self._there, self._there.path.lstrip("/")
        users = self._folder / "users.txt"
        users.write_text(f'"{there.username}" "{there.password}"\n')
        lines = [
            "[databases]",
            f"{database} = host={there.hostname} port={there.port} dbname={database}",
            "[pgbouncer]",
            *("listen_addr = 127.0.0.1", f"listen_port = {self.port}", "unix_socket_dir ="),
            *("auth_type = scram-sha-256", f"auth_file = {users}"),
            *("pool_mode = transaction", "default_pool_size = 20", "max_client_conn = 1000"),
            # With the default of 15 s between two tries, 15 s of every outage would be PgBouncer's own.
            "server_login_retry = 1",
        ]
        if self._certificate is not None:
            key, chain = self._certificate.write(self._folder)
            self._account.take(key)
            self._account.take(chain)
            lines += ["client_tls_sslmode = require", f"client_tls_key_file = {key}", f"client_tls_cert_file = {chain}"]
        configuration = self._folder / "pgbouncer.ini"
        configuration.write_text("\n".join([*lines, ""]))
        for path in (users, configuration):
            self._account.take(path)
