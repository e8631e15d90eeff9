"""Begins a run with the files that take longest, so that no process is left alone with one of them at the end.

`tests/costs.txt` has the seconds of each file that takes more than a few. `pytest … --record-costs` writes it anew for
the files that have run.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).with_name("costs.txt")
LEAST_S = 3.0


class Costs:
    """A plugin of pytest: orders by the recorded seconds, and adds up those of this run."""

    def __init__(self) -> None:
        self._spent: defaultdict[str, float] = defaultdict(float)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sort by file; tests of one file keep their order."""
        costs = read()
        items.sort(key=lambda item: (-costs.get(_file_of(item.nodeid), 0.0), _file_of(item.nodeid)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a test's setup, call or teardown to its file."""
        self._spent[_file_of(report.nodeid)] += report.duration

    def pytest_terminal_summary(self, config: pytest.Config) -> None:
        """Write the record, if that is asked for."""
        if config.getoption("--record-costs"):
            write({**read(), **self._spent})


def read() -> dict[str, float]:
    """Seconds by file."""
    lines = (line.split() for line in RECORD.read_text().splitlines())
    return {name: float(seconds) for seconds, name in lines}


def write(costs: Mapping[str, float]) -> None:
    """Write what takes long and is still there, the longest first."""
    kept = [(seconds, name) for name, seconds in costs.items() if seconds >= LEAST_S and (ROOT / name).exists()]
    RECORD.write_text("".join(f"{seconds:6.1f} {name}\n" for seconds, name in sorted(kept, reverse=True)))


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]
