"""Connections that take over for lost ones: the relay logs in by itself, as the library had, and gives up rarely."""

import collections
import random
import threading
import time
from collections.abc import Callable, Iterator

from service.whatsapp.relay.framing import ServerRefused
from service.whatsapp.relay.login import CannotLogIn, log_in
from service.whatsapp.relay.splice import Splice
from service.whatsapp.relay.trouble import Trouble
from service.whatsapp.relay.upstream import UNREACHABLE, Opened, Upstream
from zap.worker.v1 import frames_pb2

LOGIN_SECONDS = 15.0
PAUSE = (0.2, 0.3)
"""Seconds between two tries."""
_NO_LOGIN = "28"
"""Class of what a server says to somebody whom it does not know, or not by this password."""


class Replacements:
    """For the relay's thread; each connection is made by a thread of its own, which rings when it is there."""

    def __init__(
        self,
        upstream: Upstream,
        password: str,
        trouble: Trouble,
        say: Callable[[str, str], None],
        ring: Callable[[], None],
    ) -> None:
        """`say` takes a level and a sentence for the log."""
        self._upstream = upstream
        self._password = password
        self._trouble = trouble
        self._say = say
        self._ring = ring
        self._awaited: set[Splice] = set()
        self._made: collections.deque[tuple[Splice, Opened | None]] = collections.deque()
        self._is_over = False

    def __len__(self) -> int:
        """How many are being made."""
        return len(self._awaited)

    def make(self, splice: Splice, server: frames_pb2.Server, startup: bytes) -> None:
        """One for this splice, which waits for it; once, however often it is asked for."""
        if splice not in self._awaited:
            self._awaited.add(splice)
            # What a server could not do just now it may be able to do in a moment.
            arguments = splice, server, startup, time.monotonic() + (PAUSE[0] if splice.was_refused else 0.0)
            threading.Thread(target=self._make, args=arguments, name="relay-replace", daemon=True).start()

    def made(self) -> Iterator[tuple[Splice, Opened | None]]:
        """Those that are there by now, on which a server takes questions; None: there will be none."""
        while self._made:
            splice, opened = self._made.popleft()
            self._awaited.discard(splice)
            yield splice, opened

    def close(self) -> None:
        """Make no more."""
        self._is_over = True
        for _, opened in self.made():
            if opened is not None:
                opened.connection.close()

    def _make(self, splice: Splice, server: frames_pb2.Server, startup: bytes, not_before: float) -> None:
        opened: Opened | None = None
        time.sleep(max(0.0, not_before - time.monotonic()))
        try:
            opened = self._until_logged_in(server, startup)
        except Exception as error:  # noqa: BLE001 - whatever a server says: somebody waits for the end of this
            self._say("error", f"a connection to Postgres cannot be replaced: {type(error).__name__}: {error}")
        self._made.append((splice, opened))
        self._ring()

    def _until_logged_in(self, server: frames_pb2.Server, startup: bytes) -> Opened | None:
        """As often as it takes; None if there is no use in it."""
        while not self._is_over:
            try:
                return self._log_in(server, startup)
            except CannotLogIn as error:
                self._say("warning", f"a connection to Postgres cannot be replaced: {error}")
                break
            except UNREACHABLE as error:
                self._trouble.failed(f"{server.host}:{server.port}", error)
                if isinstance(error, ServerRefused) and error.error.code.startswith(_NO_LOGIN):
                    break
                time.sleep(random.uniform(*PAUSE))  # noqa: S311 - so that not all come back in one moment
        return None

    def _log_in(self, server: frames_pb2.Server, startup: bytes) -> Opened:
        opened = self._upstream.open(server, startup)
        try:
            logged_in = log_in(opened, startup, self._password, LOGIN_SECONDS)
        except BaseException:
            opened.connection.close()
            raise
        self._trouble.over()
        return logged_in
