"""What a node holds at one moment, as numbers with names: the difference of two says what was left over."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psutil

from tests.e2e.sql import Sql
from tests.service_process import ServiceProcess

IDLE_CONNECTIONS = 15
"""Connections to Postgres that a node may keep when nothing happens: its pool of ten, the one for leases, and
three for those who watch."""
GROW_BY_DESIGN = frozenset({"zap.event"})
"""Tables that are logs."""
MORE_LINES = 20
"""Lines of metrics by which two looks may differ: what happens for the first time gets its lines. A label that holds
an id, or anything else without end, has more."""

_PATIENCE = 15.0
_STABLE = 3
"""So many looks in a row have to say the same: what is on its way out may look like what was there before."""


@dataclass(frozen=True)
class Census:
    """Numbers by name. Those of `exact` must be as they were, those of `bounded` within what is said of them."""

    exact: Mapping[str, int]
    bounded: Mapping[str, int]

    def difference(self, before: "Census") -> dict[str, str]:
        """What is not as it was before, in words."""
        allowed = {"lines of metrics": MORE_LINES}
        names = sorted(self.exact.keys() | before.exact.keys())
        pairs = {name: (before.exact.get(name, 0), self.exact.get(name, 0)) for name in names}
        return {name: f"{was} → {now}" for name, (was, now) in pairs.items() if abs(now - was) > allowed.get(name, 0)}


class Observer:
    """Takes the census of one node, its processes, and what it holds in its servers."""

    def __init__(self, node: ServiceProcess, database_url: str, sql: Sql, temporary: Path) -> None:
        """`sql`: a connection to that database; `temporary`: the folder that TMPDIR of the node names alone."""
        self._node = node
        self._database_port = urlsplit(database_url).port
        self._sql = sql
        self._temporary = temporary

    async def settled(self) -> Census:
        """The census once it stays the same; the last one if it does not."""
        deadline = time.monotonic() + _PATIENCE
        seen: list[Census] = []
        while time.monotonic() < deadline:
            seen.append(await self.take())
            if len(seen) >= _STABLE and all(each.exact == seen[-1].exact for each in seen[-_STABLE:]):
                break
            await asyncio.sleep(0.1)
        return seen[-1]

    async def as_before(self, before: Census) -> dict[str, str]:
        """Wait until everything is as it was; what is not when patience ends."""
        deadline = time.monotonic() + _PATIENCE
        while (left := (await self.take()).difference(before)) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        return left

    async def take(self) -> Census:
        """Now."""
        exact: Counter[str] = Counter()
        bounded: Counter[str] = Counter()
        _count_processes(self._node, exact)
        exact["orphans"] = self._orphans()
        _count_sockets(self._node, self._database_port, exact, bounded)
        await _count_metrics(self._node.http_port, exact)
        await _count_database(self._sql, exact, bounded)
        exact["temporary files"] = sum(1 for _ in self._temporary.rglob("*"))
        return Census({name: count for name, count in exact.items() if count}, bounded)

    def _orphans(self) -> int:
        """Processes with the node's environment that do not descend from it: their zygote is dead."""
        known = {process.pid for process in self._node.processes()}
        count = 0
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid not in known and process.environ().get("TMPDIR") == str(self._temporary):
                    count += process.status() != psutil.STATUS_ZOMBIE
        return count


def _count_processes(node: ServiceProcess, exact: Counter[str]) -> None:
    for process in node.processes():
        name = "node" if process.pid == node.pid else "zygote" if process.ppid() == node.pid else "session"
        exact[f"{name} processes"] += 1
        exact["zombies"] += process.status() == psutil.STATUS_ZOMBIE
        if name == "session":
            # Its own are gone with it.
            continue
        for thread in _listed(process.pid, "task"):
            exact[f"{name} threads {_comm(thread)}"] += 1
        for descriptor in _listed(process.pid, "fd"):
            kind = _kind(descriptor)
            exact[f"{name} descriptors {kind}"] += 1
            if "zygote-stderr" in kind:
                # A file in memory that nothing limits: the zygote, and what it forks, must be silent there.
                exact["bytes on the zygote's stderr"] = descriptor.stat().st_size
    # Told apart by whom they lead to, below.
    del exact["node descriptors socket"]


def _count_sockets(node: ServiceProcess, database_port: int | None, exact: Counter[str], bounded: Counter[str]) -> None:
    """The node's sockets by what is at their other end. Those to Postgres come and go with its pool."""
    for connection in psutil.Process(node.pid).net_connections("all"):
        port = getattr(connection.raddr, "port", None)
        ours = getattr(connection.laddr, "port", None)
        if port is None:
            exact["node sockets without a peer"] += 1
        elif ours == node.http_port:
            # Our own questions.
            continue
        elif port == database_port:
            bounded["node connections to Postgres"] += 1
        else:
            exact[f"node sockets {'from callers' if ours == node.port else 'to Redis'}"] += 1


async def _count_metrics(http_port: int, exact: Counter[str]) -> None:
    address = f"http://127.0.0.1:{http_port}/metrics"
    async with aiohttp.ClientSession() as http, http.get(address) as answer:
        lines = (await answer.text()).splitlines()
    exact["lines of metrics"] = len(lines)
    for name in ("zap_tasks", "zap_session_processes", "zap_sessions_owned"):
        exact[name] = int(float(next(line for line in lines if line.startswith(f"{name} ")).split()[1]))


async def _count_database(sql: Sql, exact: Counter[str], bounded: Counter[str]) -> None:
    for row in await sql.fetch(
        "SELECT split_part(application_name, '/', 1) AS name, count(*) AS many FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() GROUP BY 1"
    ):
        kind, where = ("node's", bounded) if row["name"] == "zap-service" else (row["name"] or "nameless", exact)
        where[f"backends {kind}"] = row["many"]
    exact["advisory locks"] = await sql.fetchval(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    exact["leases held"] = await sql.fetchval("SELECT count(*) FROM zap.lease WHERE incarnation IS NOT NULL")
    exact["codes"] = await sql.fetchval("SELECT count(*) FROM zap.pairing WHERE code_text IS NOT NULL")
    for row in await sql.fetch(
        "SELECT format('%I.%I', table_schema, table_name) AS name FROM information_schema.tables"
        " WHERE table_type = 'BASE TABLE' AND (table_schema = 'zap' OR table_name LIKE 'whatsmeow\\_%')"
    ):
        if row["name"] not in GROW_BY_DESIGN:
            exact[f"rows {row['name']}"] = await sql.fetchval(f"SELECT count(*) FROM {row['name']}")  # noqa: S608


def _listed(pid: int, folder: str) -> list[Path]:
    return list(Path(f"/proc/{pid}/{folder}").iterdir())


def _comm(thread: Path) -> str:
    try:
        return (thread / "comm").read_text().strip()
    except FileNotFoundError:
        return "gone"


def _kind(descriptor: Path) -> str:
    try:
        target = str(descriptor.readlink())
    except FileNotFoundError:
        return "gone"
    return target.partition(":[")[0] if ":[" in target and "anon_inode" not in target else target
