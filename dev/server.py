"""What both embedded servers do alike: start or join, remember their port, and stop with their last user."""

import secrets
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import ClassVar, Self

from dev.account import Account
from dev.claim import Claim
from dev.errors import ServerHeldElsewhereError, ServerStartError
from dev.folder import open_data_dir, open_folder
from dev.process import Marks, choose_port, end, end_of, launch, until

# A port can be taken between our look and the server's own; nobody is that unlucky three times.
PORT_ATTEMPTS = 3


class EmbeddedServer(ABC):
    """One server of a data directory: start it or join it, use its url, leave it.

    Of several users of one data directory, in one process or in many, the last to leave stops the server.
    A server whose users were all killed goes on, and the next user joins it as it is.
    """

    name: ClassVar[str]
    ready_within: ClassVar[float]
    stop_signals: ClassVar[Sequence[tuple[Signals, float]]]

    def __init__(self, data_dir: Path, *, durable: bool = True, die_with_starter: bool = False) -> None:
        """Name the folder.

        `durable=False` gives up safety against a power cut for speed; `die_with_starter=True` ends the server
        with the thread that started it, even by kill -9. Both are for tests.
        """
        self._wanted_dir = data_dir
        self._durable = durable
        self._die_with_starter = die_with_starter
        self._account: Account
        self._folder: Path
        self._claim: Claim
        self._port = 0
        self._pid = 0
        self._child: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    @abstractmethod
    def url(self) -> str:
        """The address with its password: what DATABASE_URL or REDIS_URL would hold."""

    @property
    def pid(self) -> int:
        """The number of the server's process."""
        return self._pid

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1."""
        return self._port

    @property
    def was_joined(self) -> bool:
        """Whether the server ran already when we came."""
        return self._child is None

    @property
    def log(self) -> Path:
        """What the server itself has to say."""
        return self._folder / f"{self.name}.log"

    async def start(self) -> None:
        """Start the server, or join the one that runs; return when it answers."""
        data_dir = open_data_dir(self._wanted_dir)
        self._account = self._choose_account()
        self._claim = Claim(data_dir, self.name)
        async with self._claim.changing():
            self._folder = open_folder(data_dir, self.name, self._account)
            try:
                await self._start_or_join()
                await self._complete()
            except BaseException:
                # Cancelled or failed half-way: leave nothing behind that nobody would stop.
                if self._child is not None:
                    await self._end()
                raise
            self._claim.join()

    async def _start_or_join(self) -> None:
        running = self._find_running()
        if running is not None:
            self._pid, self._port = running
            await self._await_ready()
            return
        if self._claim.others_use_it():
            raise ServerHeldElsewhereError(
                f"Another service uses {self._folder}, but its {self.name} does not run on this machine, or has ended. "
                "Stop that service (perhaps it is in another container), or set another ZAP_DATA_DIR."
            )
        await self._prepare()
        await self._start_on_some_port()

    async def _start_on_some_port(self) -> None:
        wanted = self._remembered_port()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._port = choose_port(wanted if attempt == 1 else None)
            try:
                await self._start_process()
            except ServerStartError:
                if attempt == PORT_ATTEMPTS or "in use" not in end_of(self.log, lines=20):
                    raise
            else:
                (self._folder / "port").write_text(str(self._port), encoding="ascii")
                return

    async def _start_process(self) -> None:
        self._child = launch(
            self._command(),
            account=self._account,
            directory=self._folder,
            log=self.log,
            die_with_starter=self._die_with_starter,
        )
        self._pid = self._child.pid
        await self._await_ready()

    async def _await_ready(self) -> None:
        marks = self._marks()
        await until(lambda: self._has_ended() or self._is_ready(), self.ready_within)
        if self._has_ended() or not marks.fit(self._pid):
            raise ServerStartError(
                f"{self.name} ended while starting; its log {self.log} ends with:\n{end_of(self.log)}"
            )
        if not self._is_ready():
            raise ServerStartError(
                f"{self.name} did not answer within {self.ready_within:.0f} s; its log {self.log} ends with:\n"
                f"{end_of(self.log)}"
            )

    def _has_ended(self) -> bool:
        return self._child is not None and self._child.poll() is not None

    async def stop(self) -> None:
        """Leave the server; the last user stops it."""
        async with self._claim.changing():
            try:
                if not self._claim.others_use_it():
                    await self._end()
            finally:
                self._claim.leave()

    async def _end(self) -> None:
        await end(self._pid, self._marks(), self.stop_signals)
        child = self._child
        # Its last thread may outlive its command line by a moment, and holds the port as long.
        if child is not None and not await until(lambda: child.poll() is not None, 5.0):
            # Stopped right after its launch, it did not have its command line yet, so it got no signal.
            child.kill()
            await until(lambda: child.poll() is not None, 5.0)

    def _remembered_port(self) -> int | None:
        try:
            return int((self._folder / "port").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def _password(self) -> str:
        """Return the password in the folder, made once; the folder and the file are closed to others."""
        path = self._folder / "password"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24), self._account)
        return path.read_text(encoding="ascii")

    async def _complete(self) -> None:
        """Make what only a running server can make; nothing, unless a server says otherwise."""
        return

    @abstractmethod
    def _choose_account(self) -> Account:
        """Return the account that the server runs as."""

    @abstractmethod
    def _marks(self) -> Marks:
        """Return what the server's process is recognised by."""

    @abstractmethod
    def _find_running(self) -> tuple[int, int] | None:
        """Return process number and port of the folder's server if it runs."""

    @abstractmethod
    async def _prepare(self) -> None:
        """Write what the server needs before it can start."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command line of the server, listening on the chosen port."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether the server answers; asked every few milliseconds while it starts."""


def write_private(path: Path, text: str, account: Account) -> None:
    """Write a file that only its account can read, whole or not at all."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text, encoding="ascii")
    account.take(unfinished)
    unfinished.replace(path)
