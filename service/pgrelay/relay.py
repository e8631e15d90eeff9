"""Accepts the library's connections in this process and proxies them to Postgres, hiding every loss of a server.

One thread copies the bytes of all connections (`proxy_session.py`). Dialling blocks, so each dial has a thread of its
own (`dialler.py`). If a server is lost while a statement is under way, the relay neither closes nor answers the
library's connection, and calls `on_lost`, which ends the process. WhatsApp sends again what the library was processing,
because it is not acknowledged. If a server is lost while its connection is idle, the relay closes the library's
connection. The library dials again for its next statement, and that dial waits for Postgres.
"""

import collections
import os
import secrets
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from service.pgrelay.ack_gate import CHECK_INTERVAL_S, AckGate
from service.pgrelay.dialler import Dialler, PendingClient
from service.pgrelay.framing import NotPostgres, StartupKind
from service.pgrelay.interceptor import Interceptor
from service.pgrelay.proxy_session import READ, Lost, ProxySession
from service.pgrelay.signal_lock import SignalLock
from service.pgrelay.upstream import OpenConnection, Upstream
from zap.worker.v1 import frames_pb2

ANSWER_TIMEOUT_S = 15.0
"""Seconds for which a server may owe an answer and send nothing."""
DOUBTED_TIMEOUT_S = 8.0
"""The same, for the first answer on a connection after the node took long to append an event."""

_BACKLOG = 4096
"""Connections that may wait to be accepted; further ones are refused."""
_UCRED = struct.Struct("3i")
_READ_BYTES = 4096


class Relay:
    """Listens from its construction on, and serves connections from `start` on."""

    def __init__(
        self,
        database: frames_pb2.Database,
        url: str,
        gate: AckGate,
        on_lost: Callable[[str], None],
        log: Callable[[str, str], None],
        answer_timeout: float | None = ANSWER_TIMEOUT_S,
    ) -> None:
        """Bind one listener for each target.

        `url` is the library's address of the database; it names the user and the database, and no host. `on_lost` is
        called once, with the reason, by the relay's thread, and must not block. `log` takes a level and a sentence.
        `answer_timeout` is in seconds; None sets no limit.
        """
        self._on_lost = on_lost
        self._answer_timeout = answer_timeout
        self._dialler = Dialler(Upstream(database), self._queue_dialled, log)
        self._url, self._log = url, log
        self._gate = gate
        self._lock = SignalLock(log)
        self._clearings: list[bytes] = []
        gate.notify(self._wake)
        targets = _targets(database)
        self._name = f"@zap-{secrets.token_hex(8)}"
        self._listeners = [self._listen(number) for number in range(1, len(targets) + 1)]
        self._selector = selectors.DefaultSelector()
        for listener, server in zip(self._listeners, targets, strict=True):
            self._selector.register(listener, READ, _Target(listener, server))
        self._pending: set[PendingClient] = set()
        self._proxies: dict[ProxySession, tuple[int, int]] = {}
        """The selector events of the client's and of the server's socket."""
        self._has_more: set[ProxySession] = set()
        """Sessions that stopped pumping so that others are served."""
        self._dialled: collections.deque[tuple[PendingClient, OpenConnection | None]] = collections.deque()
        self._wakeup_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wakeup_lock = threading.Lock()
        self._selector.register(self._wakeup_fd, READ)
        self._detached: list[ProxySession | PendingClient] = []
        """Connections that are lost. They are kept because garbage collection would close their sockets."""
        self._checked_at = 0.0
        self._is_closed = self._is_loss_reported = self._is_finishing = self._is_quiet = False
        self._has_finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> None:
        """Start the thread that serves connections."""
        self._thread.start()

    def finish(self, timeout: float) -> None:
        """Forward the deferred statements before the process ends; wait `timeout` seconds at most."""
        self._is_finishing = True
        self._wake()
        self._has_finished.wait(timeout)

    def close(self) -> None:
        """Stop the thread and close all connections, which the library would see as a failure."""
        self._is_closed = self._dialler.is_closed = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        for connected in [*self._proxies, *self._pending, *self._detached]:
            connected.close()
        for listener in self._listeners:
            listener.close()
        self._selector.close()
        with self._wakeup_lock:
            os.close(self._wakeup_fd)
            self._wakeup_fd = -1

    @property
    def trouble(self) -> str:
        """Why Postgres cannot be reached now; empty if no dial has failed since the last success."""
        return self._dialler.trouble

    @property
    def address(self) -> str:
        """The URL by which the library reaches Postgres through the relay."""
        hosts = ",".join([self._name] * len(self._listeners))
        ports = ",".join(str(number) for number in range(1, len(self._listeners) + 1))
        return f"{self._url}&host={quote(hosts)}&port={quote(ports)}"

    # --- the thread

    def _run(self) -> None:
        try:
            while not self._is_closed:
                self._serve_once()
        except Exception as error:  # noqa: BLE001 - the library must see no error
            reason = f"the relay failed: {type(error).__name__}: {error}"
            self._log("error", reason)
            self._report_loss(reason)

    def _report_loss(self, reason: str) -> None:
        if not self._is_loss_reported:
            self._is_loss_reported = True
            self._on_lost(reason)

    def _serve_once(self) -> None:
        """Serve each connection that is ready once."""
        has_more = list(self._has_more)
        ready = self._selector.select(0.0 if has_more else None if self._is_quiet else CHECK_INTERVAL_S)
        for key, _ in ready:
            self._dispatch(key)
        for proxy in has_more:
            self._pump(proxy)
        self._attach_dialled()
        if self._lock.has_next:
            self._pump_held()
        if time.monotonic() - self._checked_at >= CHECK_INTERVAL_S:
            self._check_waits()
        # While no statement is under way, nothing needs a check before the next event.
        self._is_quiet = not (ready or any(proxy.is_busy for proxy in self._proxies))
        if self._is_finishing:
            self._flush()
            if not any(proxy.is_flushing for proxy in self._proxies):
                self._has_finished.set()

    def _dispatch(self, key: selectors.SelectorKey) -> None:
        match key.data:
            case ProxySession() as proxy:
                is_client = key.fileobj is proxy.client
                self._pump(proxy, client=is_client, server=not is_client)
            case _Target() as target:
                self._accept(target)
            case PendingClient() as client:
                self._read_startup(client)
            case _:
                os.eventfd_read(self._wakeup_fd)
                self._pump_held()

    def _check_waits(self) -> None:
        """Check the answer timeout and all that waits for an event, for the Signal lock or to be flushed."""
        self._checked_at = now = time.monotonic()
        if self._gate.take_slow():
            for proxy in self._proxies:
                proxy.is_doubted = True
        if self._answer_timeout is not None:
            for proxy in self._proxies:
                timeout = min(DOUBTED_TIMEOUT_S, self._answer_timeout) if proxy.is_doubted else self._answer_timeout
                if now - (proxy.waiting_since or now) >= timeout:
                    self._report_loss(f"Postgres has not answered for {timeout:g} s")
        if any(proxy.interceptor.waits_for_event for proxy in self._proxies):
            self._gate.check()
        self._lock.check()
        self._pump_held()
        self._flush()

    def _flush(self) -> None:
        for proxy in list(self._proxies):
            proxy.flush()
            self._pump(proxy)

    def _pump_held(self) -> None:
        """Pump each session that holds a request or has a COMMIT due."""
        for proxy in list(self._proxies):
            if proxy.interceptor.is_held or proxy.interceptor.is_commit_due:
                self._pump(proxy)

    # --- connected sessions

    def _pump(self, proxy: ProxySession, *, client: bool = False, server: bool = False) -> None:
        """Copy what can be copied; the flags say which sockets are readable."""
        if proxy not in self._proxies:
            return
        try:
            proxy.pump(client=client, server=server)
        except Lost as loss:
            self._detach_lost(proxy, str(loss))
            return
        if proxy.has_more:
            self._has_more.add(proxy)
        else:
            self._has_more.discard(proxy)
        wanted = (0, 0) if proxy.is_over else (proxy.client_events, proxy.server_events)
        if wanted != self._proxies[proxy]:
            self._proxies[proxy] = wanted
            self._set_events(proxy.client, wanted[0], proxy)
            self._set_events(proxy.server, wanted[1], proxy)
        if proxy.is_over:
            self._remove(proxy)
            proxy.close()

    def _detach_lost(self, proxy: ProxySession, reason: str) -> None:
        self._set_events(proxy.client, 0, proxy)
        self._set_events(proxy.server, 0, proxy)
        self._remove(proxy)
        if proxy.close_idle():
            self._log("info", f"an idle connection to Postgres was lost: {reason}")
        else:
            self._detached.append(proxy)
            self._report_loss(reason)

    def _remove(self, proxy: ProxySession) -> None:
        del self._proxies[proxy]
        self._lock.forget(proxy.interceptor)
        self._has_more.discard(proxy)

    def _set_events(self, connection: socket.socket, events: int, data: object) -> None:
        known = self._selector.get_map().get(connection)
        if known is None:
            if events:
                self._selector.register(connection, events, data)
        elif not events:
            # With an empty mask, a hang-up would be reported again and again.
            self._selector.unregister(connection)
        elif known.events != events or known.data is not data:
            self._selector.modify(connection, events, data)

    # --- listeners and pending clients

    def _listen(self, number: int) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(f"\0{self._name[1:]}/.s.PGSQL.{number}")
        listener.listen(_BACKLOG)
        return listener

    def _accept(self, target: "_Target") -> None:
        try:
            connection, _ = target.listener.accept()
        except BlockingIOError:
            return
        pid, _, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if pid != os.getpid():
            # An abstract address has no file permissions: any process of this machine can connect.
            self._log("error", f"process {pid} tried to use the session's database relay")
            connection.close()
            return
        connection.setblocking(False)  # noqa: FBT003
        client = PendingClient(connection, target.server)
        self._pending.add(client)
        self._set_events(connection, READ, client)

    def _read_startup(self, client: PendingClient) -> None:
        try:
            # After the startup message, only a close of the connection matters.
            data = client.connection.recv(_READ_BYTES, socket.MSG_PEEK if client.is_dialling else 0)
            kind = client.receive(data)
        except BlockingIOError:
            return
        except (OSError, NotPostgres):
            data, kind = b"", None
        if not data:
            self._drop_client(client)
        elif kind is not None:
            self._start_dial(client, kind)
        elif client.is_dialling:
            self._set_events(client.connection, 0, client)

    def _start_dial(self, client: PendingClient, kind: StartupKind) -> None:
        if client.server is None:
            self._set_events(client.connection, 0, client)
            self._detached.append(client)
            self._report_loss(f"none of the servers is of use: {self.trouble or 'none fits target_session_attrs'}")
            return
        client.is_dialling = True
        if kind is StartupKind.CANCEL:
            for proxy in self._proxies:
                proxy.expect_cancel()
        self._dialler.start(client, client.server, is_cancel=kind is StartupKind.CANCEL)

    def _drop_client(self, client: PendingClient) -> None:
        client.is_dropped = True
        self._set_events(client.connection, 0, client)
        self._pending.discard(client)
        client.close()

    def _attach_dialled(self) -> None:
        """Attach each client whose dial has ended to its server, or drop the client."""
        while self._dialled:
            client, opened = self._dialled.popleft()
            if client.is_dropped:
                if opened is not None:
                    opened.connection.close()
            elif opened is None:
                self._drop_client(client)
            else:
                interceptor = Interceptor(self._gate, self._lock, self._clearings)
                proxy = ProxySession(client.connection, opened.connection, opened.greeting, interceptor)
                self._set_events(client.connection, 0, client)
                self._proxies[proxy] = (0, 0)
                self._pending.discard(client)
                self._pump(proxy, client=True, server=True)

    def _queue_dialled(self, client: PendingClient, opened: OpenConnection | None) -> None:
        self._dialled.append((client, opened))
        self._wake()

    def _wake(self) -> None:
        with self._wakeup_lock:
            if self._wakeup_fd >= 0:
                os.eventfd_write(self._wakeup_fd, 1)


def _targets(database: frames_pb2.Database) -> list[frames_pb2.Server | None]:
    """Return the server of each listener, in the library's order.

    If there are several servers, or the address chooses by their attributes, lib/pq tries them in order. A final target
    without a server (None) keeps it from reporting an error after the last one.
    """
    servers = list(database.servers)
    return [*servers, None] if len(servers) > 1 or database.is_choosy else [*servers]


@dataclass(frozen=True)
class _Target:
    """A listener and the server behind it; None after the last server."""

    listener: socket.socket
    server: frames_pb2.Server | None
