"""Faults on command, in real session processes: a preload that does as tests tell it. No hook of the product's.

`ZAP_WORKER_PRELOAD=tests.e2e.faults:aim` aims the client at the simulator and listens on a socket of its own;
`provoke(pid, "segfault")` then has one process do it. In the folder ZAP_TEST_CRASHES a file with a session's name has
each process of the session abort: `load` in it, before it connects, `login`, right after its login. ZAP_TEST_PATIENCE
is for how many seconds a process waits for a connection, in place of a minute.
"""

import ctypes
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRELOAD = "tests.e2e.faults:aim"
CRASHES = "ZAP_TEST_CRASHES"
PATIENCE = "ZAP_TEST_PATIENCE"
_FOR_EVER = 3600
SECRETS = (
    "postgres://zap:hunter2@db.example/zap",
    "user=zap password=hunter2 host=db.example",
    "http://user:hunter2@proxy.example:3128",
    f"2@{'Hunter2' * 12},{'Hunter2' * 6}==,{'Hunter2' * 6}==,{'Hunter2' * 6}==",
    "491511234567",
)


def provoke(pid: int, fault: str) -> None:
    """Have a session process do it. Returns once it was told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
        teller.sendto(fault.encode(), _address(pid))


def aim() -> None:
    """The preload."""
    from simulator import preload  # noqa: PLC0415 - what is imported here is imported into session processes

    preload.aim()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(_address(os.getpid()))
    threading.Thread(target=_obey, args=(listener,), name="faults", daemon=True).start()
    if seconds := os.environ.get(PATIENCE):
        vars(sys.modules["service.worker.session.connection_monitor"])["CONNECT_TIMEOUT_S"] = float(seconds)
    if folder := os.environ.get(CRASHES):
        _crash_in_a_loop(Path(folder))


def _address(pid: int) -> bytes:
    return f"\0zap-test-faults-{pid}".encode()


def _obey(listener: socket.socket) -> None:
    while True:
        threading.Thread(target=FAULTS[listener.recv(100).decode()], name="fault", daemon=True).start()


def _product(module: str, name: str) -> Any:
    return vars(sys.modules[f"service.worker.{module}"])[name]


def _session() -> Any:
    return _only_one("session.session", "ClientSession")


def _only_one(module: str, name: str) -> Any:
    import gc  # noqa: PLC0415

    return next(thing for thing in gc.get_objects() if isinstance(thing, _product(module, name)))


def _crash_in_a_loop(folder: Path) -> None:
    # Its command line says which session it is.
    order = folder / Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].split()[1].decode()
    if order.exists() and order.read_text() == "load":
        os.abort()
    handler = _product("session.event_handler", "EventHandler")
    connected = handler._on_connected

    def crash(self: Any) -> None:
        connected(self)
        if order.exists():
            os.abort()

    handler._on_connected = crash


def _segfault() -> None:
    ctypes.string_at(0)


def _panic() -> None:
    """A client of a device that is not in the store is a nil in neonize's Go code."""
    from neonize.client import NewClient  # noqa: PLC0415

    session = _session()
    nobody = _product("addresses", "from_text")("491799999999:1@s.whatsapp.net")
    NewClient(session._relay.address, jid=nobody, uuid="nobody").connect()


def _hold_interpreter() -> None:
    ctypes.PyDLL(None).sleep(_FOR_EVER)  # PyDLL: with the interpreter's lock held


def _be_deaf() -> None:
    """The reader of commands gets stuck when it comes round, within half a second, without the interpreter's lock."""

    def _be_deaf(*_: object) -> None:
        ctypes.CDLL(None).sleep(_FOR_EVER)

    _only_one("process.host", "ProcessHost")._reader_stall.progressed = _be_deaf


def _get_stuck_in_event() -> None:
    """The library's next event never comes back from its callback: in C, without the interpreter's lock."""

    def _get_stuck_in_event(*_: object) -> None:
        ctypes.CDLL(None).sleep(_FOR_EVER)

    _product("session.client", "Client")._dispatch = _get_stuck_in_event


def _hang_in_disconnect() -> None:
    _product("session.client", "Client").disconnect = lambda _: ctypes.CDLL(None).sleep(_FOR_EVER)


def _slow_events() -> None:
    """A handler that takes its time: what WhatsApp considers delivered waits inside Go."""
    client = _product("session.client", "Client")
    dispatch = client._dispatch

    def take_time(*arguments: Any) -> None:
        time.sleep(0.01)
        dispatch(*arguments)

    client._dispatch = take_time


def _slow_login_status() -> None:
    """A machine that is busy between the scan and the first event, until the refused device is deleted."""
    login = _session()._login
    cause_of = vars(sys.modules["service.worker.session.qr_sequence"])["cause_of"]

    def take_time(*arguments: Any) -> Any:
        deadline = time.monotonic() + 20
        while login.failure is None and time.monotonic() < deadline:
            time.sleep(0.01)
        # whatsmeow logs the refusal before it deletes the device. If neonize reads the device between, it tells of the
        # scan after all.
        time.sleep(1.0)
        return cause_of(*arguments)

    vars(sys.modules["service.worker.session.qr_sequence"])["cause_of"] = take_time


def _be_impatient() -> None:
    """A server that owes an answer is given a second, and not a quarter of a minute."""
    _session()._relay._answer_timeout = 1.0


def _no_memory() -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    _product("process.host", "ProcessHost")._execute = fail


def _fill_stderr() -> None:
    try:
        while True:
            os.write(2, b"noise " * 1000)
    except OSError:
        return


def _blurt_out() -> None:
    """Dies with all on its lips that must not be in a log."""
    os.write(2, f"panic: {SECRETS}\n\ngoroutine 1 [running]:\nmain({SECRETS})\n".encode())
    os.abort()


FAULTS: dict[str, Callable[[], None]] = {
    "abort": os.abort,
    "segfault": _segfault,
    "panic": _panic,
    "blurt-out": _blurt_out,
    "exit": lambda: os._exit(7),
    "no-memory": _no_memory,
    "impatient": _be_impatient,
    "hold-interpreter": _hold_interpreter,
    "deaf": _be_deaf,
    "stuck-event": _get_stuck_in_event,
    "hang-in-disconnect": _hang_in_disconnect,
    "slow-events": _slow_events,
    "slow-login-status": _slow_login_status,
    "fill-stderr": _fill_stderr,
}
