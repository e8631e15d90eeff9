"""The relay: listens for the library in this process, and lets it reach Postgres without ever hearing that it failed.

One thread passes everything on (`splice.py`); dialling blocks, so each dial has a thread of its own (`upstream.py`).
When a connection is lost on which a statement is under way, the library's end of it falls silent: it is not closed, and
nothing comes. The owner of the relay is told and ends the process. What the library was doing was not acknowledged to
WhatsApp, and comes again. A connection that is lost while it is idle is closed: the library dials another one when it
has something to ask, and the dial waits for Postgres.
"""

import collections
import os
import random
import secrets
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from service.pgrelay.ack_gate import LOOK_S, AckGate
from service.pgrelay.framing import NotPostgres, StartupKind, first_message
from service.pgrelay.interceptor import Interceptor
from service.pgrelay.outage_log import OutageLog
from service.pgrelay.proxy_session import READ, Lost, ProxySession
from service.pgrelay.signal_lock import SignalLock
from service.pgrelay.upstream import UNREACHABLE, OpenConnection, Upstream
from zap.worker.v1 import frames_pb2

ANSWER_TIMEOUT_S = 15.0
"""How long a server may owe an answer and send nothing."""

_REDIAL_PAUSE_S = (0.2, 0.3)
"""Between two dials of a server that cannot be reached."""
_BACKLOG = 4096
"""Connections that may wait to be accepted: Go is refused beyond that."""
_PEER = struct.Struct("3i")
_SMALL = 4096


class Relay:
    """Listens from the beginning; passes on from `start` on."""

    def __init__(
        self,
        database: frames_pb2.Database,
        url: str,
        gate: AckGate,
        on_lost: Callable[[str], None],
        say: Callable[[str, str], None],
        answer_timeout: float | None = ANSWER_TIMEOUT_S,
    ) -> None:
        """`url`: the library's address of the database. It names no host, only the user and the database.

        `on_lost` is called once, with the reason, by the relay's thread: it must not wait. `say` takes a level and a
        sentence for the log. `answer_timeout` None: a server may take its time.
        """
        self._upstream = Upstream(database)
        self._on_lost = on_lost
        self._answer_timeout = answer_timeout
        self._trouble = OutageLog(say)
        self._url, self._say = url, say
        self._gate = gate
        self._lock: SignalLock[Interceptor] = SignalLock(say)
        self._clearings: list[bytes] = []
        gate.notify(self._ring)
        doors = _doors(database)
        self._name = f"@zap-{secrets.token_hex(8)}"
        self._listeners = [self._listen(number) for number in range(1, len(doors) + 1)]
        self._selector = selectors.DefaultSelector()
        for listener, server in zip(self._listeners, doors, strict=True):
            self._selector.register(listener, READ, _Door(listener, server))
        self._callers: set[_Caller] = set()
        self._splices: dict[ProxySession, tuple[int, int]] = {}
        """With what is waited for on their two sockets."""
        self._has_more: set[ProxySession] = set()
        """Those that stopped to let others be served."""
        self._dialled: collections.deque[tuple[_Caller, OpenConnection | None]] = collections.deque()
        self._doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = threading.Lock()
        self._selector.register(self._doorbell, READ)
        self._mute: list[ProxySession | _Caller] = []
        """Whose server is lost. Kept, since what is garbage is closed."""
        self._looked_at = 0.0
        self._is_over = self._has_lost = self._is_finishing = self._is_quiet = False
        self._has_finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> None:
        """Pass on from now on."""
        self._thread.start()

    def finish(self, timeout: float) -> None:
        """Have the messages cleared that are to be cleared, before the process ends; wait `timeout` seconds at most."""
        self._is_finishing = True
        self._ring()
        self._has_finished.wait(timeout)

    def close(self) -> None:
        """Stop, and close everything. The library would take that for a failure."""
        self._is_over = True
        os.eventfd_write(self._doorbell, 1)
        if self._thread.is_alive():
            self._thread.join()
        for connected in [*self._splices, *self._callers, *self._mute]:
            connected.close()
        for listener in self._listeners:
            listener.close()
        self._selector.close()
        with self._closing:
            os.close(self._doorbell)
            self._doorbell = -1

    @property
    def trouble(self) -> str:
        """Why Postgres cannot be reached just now, in words; empty if nothing is known of that."""
        return self._trouble.last

    @property
    def address(self) -> str:
        """The library's, by way of the relay."""
        hosts = ",".join([self._name] * len(self._listeners))
        ports = ",".join(str(number) for number in range(1, len(self._listeners) + 1))
        return f"{self._url}&host={quote(hosts)}&port={quote(ports)}"

    # --- the thread

    def _run(self) -> None:
        try:
            while not self._is_over:
                self._pass_on()
        except Exception as error:  # noqa: BLE001 - whatever it is: the library must not hear of it
            words = f"the relay failed: {type(error).__name__}: {error}"
            self._say("error", words)
            self._lose(words)

    def _lose(self, words: str) -> None:
        if not self._has_lost:
            self._has_lost = True
            self._on_lost(words)

    def _pass_on(self) -> None:
        """Serve each connection that has news, once."""
        has_more = list(self._has_more)
        ready = self._selector.select(0.0 if has_more else None if self._is_quiet else LOOK_S)
        for key, _ in ready:
            self._attend(key)
        for splice in has_more:
            self._pump(splice, client=False, server=False)
        self._welcome()
        if self._lock.has_next:
            self._release()
        if time.monotonic() - self._looked_at >= LOOK_S:
            self._look()
        # If no statement is under way there is nothing to look at before the next one comes.
        self._is_quiet = not (ready or any(splice.is_busy for splice in self._splices))
        if self._is_finishing:
            self._flush()
            if not any(splice.is_flushing for splice in self._splices):
                self._has_finished.set()

    def _attend(self, key: selectors.SelectorKey) -> None:
        match key.data:
            case ProxySession() as splice:
                is_client = key.fileobj is splice.client
                self._pump(splice, client=is_client, server=not is_client)
            case _Door() as door:
                self._accept(door)
            case _Caller() as caller:
                self._hear(caller)
            case _:
                os.eventfd_read(self._doorbell)
                self._release()

    def _look(self) -> None:
        """Look at what waits: for a server, for an event that does not come, for the Signal lock, to be cleared."""
        self._looked_at = now = time.monotonic()
        since = min((splice.waiting_since or now for splice in self._splices), default=now)
        if self._answer_timeout is not None and now - since >= self._answer_timeout:
            self._lose(f"Postgres has not answered for {self._answer_timeout:g} s")
        if any(splice.interceptor.waits_for_event for splice in self._splices):
            self._gate.look()
        self._lock.look()
        self._release()
        self._flush()

    def _flush(self) -> None:
        for splice in list(self._splices):
            splice.flush()
            self._pump(splice, client=False, server=False)

    def _release(self) -> None:
        """Pass on what was held, if it may pass by now."""
        for splice in list(self._splices):
            if splice.interceptor.is_held or splice.interceptor.is_commit_due:
                self._pump(splice, client=False, server=False)

    # --- connections that are up

    def _pump(self, splice: ProxySession, *, client: bool, server: bool) -> None:
        if splice not in self._splices:
            return
        try:
            splice.pump(client=client, server=server)
        except Lost as loss:
            self._end_lost(splice, str(loss))
            return
        if splice.has_more:
            self._has_more.add(splice)
        else:
            self._has_more.discard(splice)
        wanted = (0, 0) if splice.is_over else (splice.client_events, splice.server_events)
        if wanted != self._splices[splice]:
            self._splices[splice] = wanted
            self._watch(splice.client, wanted[0], splice)
            self._watch(splice.server, wanted[1], splice)
        if splice.is_over:
            self._forget(splice)
            splice.close()

    def _end_lost(self, splice: ProxySession, words: str) -> None:
        self._watch(splice.client, 0, splice)
        self._watch(splice.server, 0, splice)
        self._forget(splice)
        if splice.close_idle():
            self._say("info", f"an idle connection to Postgres was lost: {words}")
        else:
            self._mute.append(splice)
            self._lose(words)

    def _forget(self, splice: ProxySession) -> None:
        del self._splices[splice]
        self._lock.forget(splice.interceptor)
        self._has_more.discard(splice)

    def _watch(self, connection: socket.socket, events: int, data: object) -> None:
        known = self._selector.get_map().get(connection)
        if known is None:
            if events:
                self._selector.register(connection, events, data)
        elif not events:
            # Not even for a hang-up: it would be reported until it is dealt with, and it is not its turn.
            self._selector.unregister(connection)
        elif known.events != events or known.data is not data:
            self._selector.modify(connection, events, data)

    # --- connections to be

    def _listen(self, number: int) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(f"\0{self._name[1:]}/.s.PGSQL.{number}")
        listener.listen(_BACKLOG)
        return listener

    def _accept(self, door: "_Door") -> None:
        try:
            connection, _ = door.listener.accept()
        except BlockingIOError:
            return
        pid, _, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if pid != os.getpid():
            # An address without a file has no owner either: anybody on this machine can try it.
            self._say("error", f"process {pid} tried to use the session's database relay")
            connection.close()
            return
        connection.setblocking(False)  # noqa: FBT003
        caller = _Caller(connection, door.server)
        self._callers.add(caller)
        self._watch(connection, READ, caller)

    def _hear(self, caller: "_Caller") -> None:
        try:
            # Once it has said what it wants, only whether it is still there matters.
            data = caller.connection.recv(_SMALL, socket.MSG_PEEK if caller.is_served else 0)
            kind = caller.hear(data)
        except BlockingIOError:
            return
        except (OSError, NotPostgres):
            data, kind = b"", None
        if not data:
            self._drop(caller)
        elif kind is not None:
            self._serve(caller, kind)
        elif caller.is_served:
            self._watch(caller.connection, 0, caller)

    def _serve(self, caller: "_Caller", kind: StartupKind) -> None:
        if caller.server is None:
            self._watch(caller.connection, 0, caller)
            self._mute.append(caller)
            self._lose(f"none of the servers is of use: {self.trouble or 'not one is what the address asks for'}")
            return
        caller.is_served = True
        if kind is StartupKind.CANCEL:
            for splice in self._splices:
                splice.expect_cancel()
        work = self._cancel if kind is StartupKind.CANCEL else self._dial
        threading.Thread(target=work, args=(caller, caller.server), name="relay-dial", daemon=True).start()

    def _drop(self, caller: "_Caller") -> None:
        caller.is_gone = True
        self._watch(caller.connection, 0, caller)
        self._callers.discard(caller)
        caller.close()

    def _welcome(self) -> None:
        """Go on with those whose dial is over."""
        while self._dialled:
            caller, opened = self._dialled.popleft()
            if caller.is_gone:
                if opened is not None:
                    opened.connection.close()
            elif opened is None:
                self._drop(caller)
            else:
                interceptor = Interceptor(self._gate, self._lock, self._clearings)
                splice = ProxySession(caller.connection, opened.connection, opened.said, interceptor)
                # Its client has been watched until now.
                self._watch(caller.connection, 0, caller)
                self._splices[splice] = (0, 0)
                self._callers.discard(caller)
                self._pump(splice, client=True, server=True)

    # --- dials, each in its own thread

    def _dial(self, caller: "_Caller", server: frames_pb2.Server) -> None:
        """Until a server answers. Only if another one does is the library told to go on to it."""
        opened: OpenConnection | None = None
        while not (self._is_over or caller.is_gone):
            try:
                opened = self._upstream.open(server, caller.first)
            except Exception as error:  # noqa: BLE001 - a host's name that is no name, say: it waits, and its node sees why
                self._trouble.failed(_words(server), error)
                if self._is_another_up(server, caller.first):
                    break
                time.sleep(random.uniform(*_REDIAL_PAUSE_S))  # noqa: S311 - so that not all come back in one moment
            else:
                self._trouble.over()
                break
        self._hand_over(caller, opened)

    def _is_another_up(self, server: frames_pb2.Server, startup: bytes) -> bool:
        for other in self._upstream.servers:
            if other is not server:
                try:
                    self._upstream.open(other, startup).connection.close()
                except UNREACHABLE as error:
                    self._trouble.failed(_words(other), error)
                else:
                    return True
        return False

    def _cancel(self, caller: "_Caller", server: frames_pb2.Server) -> None:
        try:
            self._upstream.say(server, caller.first)
        except UNREACHABLE as error:
            self._say("info", f"a query could not be cancelled: {error}")
        self._hand_over(caller, None)

    def _hand_over(self, caller: "_Caller", opened: OpenConnection | None) -> None:
        self._dialled.append((caller, opened))
        self._ring()

    def _ring(self) -> None:
        with self._closing:
            if self._doorbell >= 0:
                os.eventfd_write(self._doorbell, 1)


def _doors(database: frames_pb2.Database) -> list[frames_pb2.Server | None]:
    """The servers that the library can knock at.

    If there are several, or it matters which of them it is, the library goes through them in order. When it has come to
    the end it would report an error; so behind the last one there is a door that leads nowhere (None).
    """
    servers = list(database.servers)
    return [*servers, None] if len(servers) > 1 or database.is_choosy else [*servers]


@dataclass(frozen=True)
class _Door:
    """Where the library knocks to reach one server; None: where it knocks when no server was of use."""

    listener: socket.socket
    server: frames_pb2.Server | None


class _Caller:
    """A connection of the library's that is not connected to a server yet."""

    def __init__(self, connection: socket.socket, server: frames_pb2.Server | None) -> None:
        self.connection = connection
        self.server = server
        self.first = b""
        """What it said first, once it is served."""
        self.is_served = False
        self.is_gone = False
        self._received = b""

    def close(self) -> None:
        """Let go of it."""
        self.connection.close()

    def hear(self, data: bytes) -> StartupKind | None:
        """What it wants, once it is known. Raises NotPostgres."""
        if self.is_served:
            return None
        self._received += data
        while (message := first_message(self._received)) is not None:
            kind, self.first = message
            if kind is not StartupKind.ENCRYPTION:
                return kind
            # Encrypted it is from here on, not up to here.
            self.connection.send(b"N")
            self._received = self._received[len(self.first) :]
        return None


def _words(server: frames_pb2.Server) -> str:
    return f"{server.host}:{server.port}"
