"""The rooms of service/ know each other only in the directions that the design draws, and stay small.

dev/ stands beside service/: only node/connections.py imports it, where no URL is set; it knows nothing of service/.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FILE = 500
MOST_METHODS = 25
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "models", "misc"}

# What each room may import of service/, besides itself. A room that is absent here is refused: draw its arrows first.
# `generated` stands for the parsers of the protos (zap, buf): the edges of the service speak them, its core does not.
ARROWS: dict[str, set[str]] = {
    "__main__": {"cli", "node"},
    "node": {"*"},
    "cli": {"node.config", "node.wiring", "generated"},
    "ports": {"domain"},
    "domain": set(),
    "sessions": {"ports", "domain"},
    "messaging": {"sessions", "ports", "domain"},
    "media": {"sessions", "ports", "domain", "generated"},
    "watch": {"ports", "domain"},
    "ownership": {"ports", "domain"},
    "maintenance": {"ports", "domain"},
    "protocol": {"media.reference", "media.sniffing", "ports", "domain", "generated"},
    "auth": {"domain"},
    "api": {
        *("sessions", "messaging", "media", "watch", "ownership.router", "protocol", "telemetry", "auth"),
        *("ports", "domain", "generated"),
    },
    "wire": {"generated"},
    "workers": {"wire", "ports", "domain", "generated"},
    "worker": {"media.reference", "media.sniffing", "pgrelay", "wire", "domain", "generated"},
    "pgrelay": {"generated"},
    "store": {"ports", "domain", "generated"},
    "eventlog": {"store", "ports", "domain", "generated"},
    "bus": {"ports", "domain", "generated"},
    "telemetry": {"ports", "domain", "generated"},
}
GENERATED = {"zap", "buf"}

# What is of a process and what is of a session stay apart on both sides, so that a process can have several sessions:
# by module or part of a room, what it may not import of its own room, and what of that it may.
APART: tuple[tuple[str, str, set[str]], ...] = (
    ("worker.process", "worker.session", set()),
    (
        *("worker.session", "worker.process"),
        {
            f"worker.process.{name}"
            for name in ("frame_writer", "log_forwarder", "redaction", "session_end", "stall_detector")
        },
    ),
    *(
        (f"workers.{name}", "workers.hosted_session", set())
        for name in ("process", "channel", "exit_watcher", "zygote")
    ),
    *(("workers.hosted_session", f"workers.{name}", set()) for name in ("channel", "exit_watcher", "zygote_process")),
    ("workers.process", "workers.waiting", set()),
)
COMPOSITION_ROOTS = {"worker.process.main"}


def imports_of(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield the full names of all that a module imports, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def may_import(room: str, target: str) -> bool:
    """Whether a module of a room may import a name."""
    if target.partition(".")[0] in GENERATED:
        return not ARROWS[room].isdisjoint({"generated", "*"})
    if target.partition(".")[0] == "dev":
        return room == "node"
    if not target.startswith("service."):
        return True
    inner = target.removeprefix("service.")
    if inner.partition(".")[0] == room or "*" in ARROWS[room]:
        return True
    return any(inner == allowed or inner.startswith(f"{allowed}.") for allowed in ARROWS[room])


def is_within(name: str, part: str) -> bool:
    """Whether a name is a part of service/, or in it."""
    return name == part or name.startswith(f"{part}.")


def stays_apart(module: str, target: str) -> bool:
    """Whether a module of service/ keeps away from the other half of its room in this import."""
    inner = target.removeprefix("service.")
    return module in COMPOSITION_ROOTS or not any(
        is_within(module, part) and is_within(inner, other) and not any(is_within(inner, name) for name in allowed)
        for part, other, allowed in APART
    )


def faults_of_import(parts: tuple[str, ...], target: str) -> Iterator[str]:
    """Yield what is wrong with one import of a module, given by its name below service/."""
    room = parts[0]
    if not may_import(room, target):
        yield f"{room} may not import {target}"
    if not stays_apart(".".join(parts), target):
        yield f"sessions and processes stay apart: {'.'.join(parts)} may not import {target}"
    if target.partition(".")[0] == "neonize" and room != "worker":
        yield "only worker may import neonize"
    if room == "domain" and not in_reach_of_domain(target):
        yield f"domain may import the standard library only, not {target}"


def faults(name: str, source: str) -> Iterator[str]:
    """Yield what is wrong with one file, given by its path below service/."""
    parts = Path(name).with_suffix("").parts
    if name == "__init__.py":
        parts = ("node",)
    room = parts[0]
    tree = ast.parse(source)
    if room not in ARROWS:
        yield f"{name}: the room {room!r} has no arrows in tests/unit/test_layout.py"
        return
    if (lines := source.count("\n")) > LONGEST_FILE:
        yield f"{name}: {lines} lines, more than {LONGEST_FILE}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and (methods := count_methods(node)) > MOST_METHODS:
            yield f"{name}: {node.name} has {methods} methods, more than {MOST_METHODS}"
    yield from (f"{name}: the name {part!r} says nothing" for part in parts if part in EMPTY_NAMES)
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    if any(target.partition(".")[0] == "dev" for target in imports_of(top, "service")):
        yield f"{name}: dev may be imported in a function only: an image has none"
    for target in imports_of(tree, ".".join(["service", *parts[:-1]])):
        yield from (f"{name}: {fault}" for fault in faults_of_import(parts, target))
    if room == "domain" and any(isinstance(node, (ast.Await, ast.AsyncFunctionDef)) for node in ast.walk(tree)):
        yield f"{name}: domain may not await"


def count_methods(of: ast.ClassDef) -> int:
    """The methods and properties that a class defines itself."""
    return sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in of.body)


def in_reach_of_domain(target: str) -> bool:
    """Whether domain may import a name: the standard library without its event loop, or domain itself."""
    top = target.partition(".")[0]
    return target.startswith("service.domain") or (top in sys.stdlib_module_names and top != "asyncio")


def test_the_rooms_of_the_service_keep_to_their_arrows() -> None:
    service = ROOT / "service"
    found = [
        fault
        for path in sorted(service.rglob("*.py"))
        for fault in faults(str(path.relative_to(service)), path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_no_two_public_classes_of_the_service_have_one_name() -> None:
    found = Counter(
        node.name
        for path in (ROOT / "service").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in found.items() if count > 1] == []


def test_the_embedded_servers_know_nothing_of_the_service() -> None:
    for path in (ROOT / "dev").rglob("*.py"):
        imported = imports_of(ast.parse(path.read_text(encoding="utf-8")), "dev")
        assert not [target for target in imported if target.partition(".")[0] in {"service", "tests", *GENERATED}]


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("domain/session.py", "import asyncpg", "standard library only"),
        ("domain/session.py", "import asyncio", "standard library only"),
        ("domain/session.py", "async def f():\n    pass", "may not await"),
        ("domain/session.py", "from service.ports import Store", "domain may not import service.ports"),
        ("domain/session.py", "from zap.v1 import session_pb2", "domain may not import zap"),
        ("sessions/service.py", "from service.eventlog.inbound import append", "sessions may not import"),
        ("sessions/service.py", "def f():\n    import service.bus", "sessions may not import service.bus"),
        ("ownership/lease_renewer.py", "from ..store import leases", "ownership may not import service.store.leases"),
        ("ownership/lease_renewer.py", "from zap.v1 import session_pb2", "ownership may not import zap"),
        ("api/grpc/sessions.py", "from service.ownership.lease_renewer import LeaseRenewer", "api may not import"),
        ("api/grpc/sessions.py", "from service.ownership import lease_renewer", "api may not import"),
        ("eventlog/inbound.py", "from service.sessions import runner", "eventlog may not import"),
        ("worker/session/client.py", "from service.workers.supervisor import Supervisor", "worker may not import"),
        ("workers/process.py", "import neonize", "only worker may import neonize"),
        ("worker/process/host.py", "from service.worker.session.session import ClientSession", "stay apart"),
        ("worker/process/host.py", "def f():\n    from service.worker import session", "stay apart"),
        ("worker/session/session.py", "from service.worker.process.watchdog import Watchdog", "stay apart"),
        ("worker/session/session.py", "from service.worker.process import exit", "stay apart"),
        ("worker/session/session.py", "from service.worker.process.host import ProcessHost", "stay apart"),
        ("workers/process.py", "from service.workers.hosted_session import HostedSession", "stay apart"),
        ("workers/hosted_session.py", "from service.workers.channel import WorkerChannel", "stay apart"),
        ("node/wiring.py", "from neonize.aioze import client", "only worker may import neonize"),
        ("__main__.py", "from service.store import database", "__main__ may not import"),
        ("store/startup_checks.py", "def f():\n    import dev", "store may not import dev"),
        ("node/connections.py", "import dev", "in a function only"),
        ("store/utils.py", "", "says nothing"),
        ("common/names.py", "", "no arrows"),
        ("eventlog/inbound.py", "\n" * 501, "501 lines"),
        ("eventlog/inbound.py", "class A:" + "".join(f"\n    def f{n}(self): ..." for n in range(26)), "26 methods"),
    ],
)
def test_a_breach_is_found(name: str, source: str, complaint: str) -> None:
    assert any(complaint in fault for fault in faults(name, source))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("node/wiring.py", "from service.store import database\nfrom service.api.grpc import server"),
        ("node/connections.py", "def f():\n    import dev"),
        ("api/grpc/sessions.py", "from service.ownership.router import Router\nfrom zap.v1 import session_pb2"),
        ("api/grpc/sessions.py", "from service.ownership import router"),
        (
            "worker/session/client.py",
            "import neonize\nfrom service.wire.framing import Frame\nfrom service.domain import events",
        ),
        ("worker/process/main.py", "from service.worker.session.session import ClientSession"),
        ("worker/session/outbox.py", "from service.worker.process.frame_writer import FrameWriter"),
        ("domain/session.py", "import dataclasses\nfrom service.domain.events import Event\nfrom . import lease"),
        ("eventlog/inbound.py", "import asyncpg\nfrom service.store.database import Database"),
    ],
)
def test_what_the_design_draws_is_allowed(name: str, source: str) -> None:
    assert list(faults(name, source)) == []
