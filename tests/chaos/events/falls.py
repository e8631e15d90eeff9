"""Session processes that die in the middle of their work; docs/neonize.md, What a kill costs, says what each may."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import psutil

from tests.service_process import ServiceProcess, is_alive

COST = 1
"""Messages that the death of one session process may cost: the one that it has in hand."""

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
    late: set[Start] = field(default_factory=set)
    """Those that were killed while their node was frozen: nobody but it has what they had told it, and WhatsApp takes
    that for delivered. It writes it down when it wakes up, behind what the next owner has heard meanwhile."""

    def add(self, starts: Iterable[Start], cause: str) -> None:
        """These fell; the first cause is the true one."""
        for start in starts:
            self.causes.setdefault(start, cause)

    def add_dead(self, processes: dict[Start, psutil.Process], cause: str) -> None:
        """Those of these that live no more."""
        self.add([start for start, process in processes.items() if not is_alive(process)], cause)

    def may_be_late(self, session_id: str, epoch: int) -> bool:
        """Whether what this process heard may be in the log behind what later ones did."""
        return Start(session_id, epoch) in self.late

    def may_cost(self, session_id: str, first: int, before: int | None) -> int:
        """Messages that a session may lack between one that epoch `first` took and one that epoch `before` took."""
        fallen = [
            start
            for start in self.causes
            if start.session_id == session_id and first <= start.epoch and (before is None or start.epoch < before)
        ]
        return COST * len(fallen)

    def __str__(self) -> str:
        causes = Counter(self.causes.values())
        return f"{len(self.causes)} falls ({', '.join(f'{count} by {cause}' for cause, count in causes.items())})"
