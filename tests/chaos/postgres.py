"""A Postgres that can be stopped in every way there is and started again in its place: the wheel's, or Debian's."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
import psutil

from dev.account import without_root
from dev.postgres import program_for
from dev.process import choose_port, end_of, launch
from tests.chaos.small_disk import SmallDisk
from tests.chaos.tls import Certificate
from tests.eventually import eventually

USER, DATABASE = "zap", "zap"
_DEBIAN = Path("/usr/lib/postgresql")
_START_SECONDS = 60.0
_DISK_MEGABYTES = 320
"""Of a small disk: a new cluster, the write-ahead log of these settings, and room for some outages."""

#: Safe against the crash of the server, which is what happens here; not against that of the machine. Not the settings
#: of the other tests: with synchronous_commit=off a crash forgets what was committed in the half second before it, and
#: no service could keep that.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_prepared_transactions": "0",
    "shared_buffers": "32MB",
    "fsync": "off",
    "full_page_writes": "off",
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
    "log_checkpoints": "off",
}


def debian_programs() -> Path | None:
    """The newest of Debian's Postgres on this machine, which has TLS; None if there is none."""
    found = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Postgres:
    """`async with Postgres(folder) as server:`; the folder must be open to other accounts (0o711)."""

    def __init__(
        self,
        folder: Path,
        programs: Path | None = None,
        certificate: Certificate | None = None,
        *,
        has_small_disk: bool = False,
    ) -> None:
        """`programs`: of the Postgres to run, the wheel's if absent. `certificate`: it has TLS, and clients use it.

        `has_small_disk`: all its files are on a disk of their own that can be full.
        """
        self._account = without_root()
        self._folder = folder / f"postgres-{secrets.token_hex(4)}"
        self.disk = SmallDisk(self._folder, _DISK_MEGABYTES) if has_small_disk else None
        self._programs = programs
        self._certificate = certificate
        self._password = secrets.token_urlsafe(12)
        self._child: subprocess.Popen[bytes] | None = None
        self.port = choose_port(None)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._initialise)
        await self.start()
        connection = await asyncpg.connect(self.url_of("postgres"))
        await connection.execute(f"CREATE DATABASE {DATABASE}")
        await connection.close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None and self._child.poll() is None:
            self.thaw()
            await self.stop(signal.SIGQUIT)
        if self.disk is not None:
            self.disk.unmount()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Of the database `zap`."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Of a database."""
        mode = "require" if self._certificate else "disable"
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{database}?sslmode={mode}"

    async def start(self) -> None:
        """Start it, on its port, and return once it answers."""
        self._launch()
        deadline = time.monotonic() + _START_SECONDS
        while not await answers(self.url_of("postgres")):
            if self._process.poll() is not None:
                # Processes of the one before may hold its memory for a moment.
                if time.monotonic() > deadline or "shared memory block" not in end_of(self._log, lines=20):
                    raise RuntimeError(f"Postgres did not start:\n{end_of(self._log, lines=20)}")
                self._launch()
            await asyncio.sleep(0.02)

    async def stop(self, number: signal.Signals) -> None:
        """SIGQUIT: at once, to recover at the next start; SIGINT: fast, with a farewell to every client."""
        self._process.send_signal(number)
        await eventually(lambda: self._process.poll() is not None)

    @property
    def has_ended(self) -> bool:
        """Return whether it has ended by itself."""
        return self._process.poll() is not None

    def freeze(self) -> None:
        """Stop all its processes: connections stay, connects succeed, nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal_all(signal.SIGCONT)

    def kill_backend(self, pid: int) -> None:
        """kill -9 of one backend: Postgres ends all the others too, and recovers."""
        if pid not in {child.pid for child in psutil.Process(self._process.pid).children()}:
            raise RuntimeError(f"{pid} is no backend of this server")
        os.kill(pid, signal.SIGKILL)

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise RuntimeError("Postgres was never started")
        return self._child

    @property
    def _cluster(self) -> Path:
        return self._folder / "cluster"

    @property
    def _log(self) -> Path:
        return self._folder / "postgres.log"

    def _signal_all(self, number: signal.Signals) -> None:
        # The one that forks first; what it forked just before is found by the next look.
        server = psutil.Process(self._process.pid)
        server.send_signal(number)
        for _ in range(2):
            for child in server.children(recursive=True):
                # One that was continued just now may have found its client gone, and left.
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.send_signal(number)

    def _initialise(self) -> None:
        self._folder.mkdir(mode=0o700)
        if self.disk is not None:
            self.disk.mount()
        self._account.take(self._folder)
        self._programs = self._programs or program_for(self._account, self._folder)
        password = self._folder / "password"
        password.write_text(self._password)
        self._account.take(password)
        made = self._account.run(
            [
                str(self._programs / "initdb"),
                *(f"--pgdata={self._cluster}", f"--username={USER}", f"--pwfile={password}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync"),
            ],
            timeout=120,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{made.stdout}{made.stderr}")
        if self._certificate is not None:
            for path in self._certificate.write(self._folder):
                self._account.take(path)

    def _launch(self) -> None:
        settings = {**_SETTINGS, "port": str(self.port)}
        if self._certificate is not None:
            key, chain = self._certificate.paths(self._folder)
            settings |= {"ssl": "on", "ssl_key_file": str(key), "ssl_cert_file": str(chain)}
        self._child = launch(
            [
                *(f"{self._programs}/postgres", "-D", str(self._cluster)),
                *(argument for key, value in settings.items() for argument in ("-c", f"{key}={value}")),
            ],
            account=self._account,
            directory=self._folder,
            log=self._log,
            die_with_starter=True,
        )


async def answers(url: str, timeout: float = 1.0) -> bool:
    """Whether the database at this address lets us in and answers a query."""
    try:
        async with asyncio.timeout(timeout):
            connection = await asyncpg.connect(url, statement_cache_size=0)
            try:
                await connection.fetchval("SELECT 1")
            finally:
                connection.terminate()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True
