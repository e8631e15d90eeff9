"""Session processes that die in the middle of their work, and of what."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import psutil

from tests.service_process import ServiceProcess, is_alive

_TITLE = re.compile(r"zap-session (?P<session_id>\S+) epoch (?P<epoch>\d+)")


@dataclass(frozen=True, order=True)
class Start:
    """One process of one session."""

    session_id: str
    epoch: int


def running(nodes: Iterable[ServiceProcess]) -> dict[Start, psutil.Process]:
    """The session processes of these nodes."""
    found = {}
    for process in (process for node in nodes for process in node.session_processes()):
        if start := _start_of(process):
            found[start] = process
    return found


def _start_of(process: psutil.Process) -> Start | None:
    try:
        title = _TITLE.match(" ".join(process.cmdline()))
    except psutil.NoSuchProcess:
        return None
    return Start(title["session_id"], int(title["epoch"])) if title else None


@dataclass
class Falls:
    """Which processes fell, and how."""

    causes: dict[Start, str] = field(default_factory=dict)

    def add(self, starts: Iterable[Start], cause: str) -> None:
        """These fell; the first cause is the true one."""
        for start in starts:
            self.causes.setdefault(start, cause)

    def add_dead(self, processes: dict[Start, psutil.Process], cause: str) -> None:
        """Those of these that live no more."""
        self.add([start for start, process in processes.items() if not is_alive(process)], cause)

    def __str__(self) -> str:
        causes = Counter(self.causes.values())
        return f"{len(self.causes)} falls ({', '.join(f'{count} by {cause}' for cause, count in causes.items())})"
