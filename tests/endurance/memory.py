"""What processes take, and how fast that grows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Memory:
    """Of one process, or of several together, in KiB."""

    private: int
    """What it has written and nobody else has. Not pages of files: whether others have those mapped is chance."""
    proportional: int
    """All of it, with its share of what it has in common with others (PSS)."""
    anonymous: int
    """What it has written, whether or not others still share it after a fork: what grows, if it does."""

    @classmethod
    def of(cls, pids: Iterable[int]) -> Self:
        """What these processes take; one that is gone takes nothing."""
        private = proportional = anonymous = 0
        for pid in pids:
            values = _rollup(pid)
            private += values.get("Private_Dirty", 0)
            proportional += values.get("Pss", 0)
            anonymous += values.get("Anonymous", 0)
        return cls(private, proportional, anonymous)


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """By how much y grows for each 1 of x: least squares. 0 for fewer than two points."""
    if len(xs) < 2:
        return 0.0
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - middle_x) ** 2 for x in xs)
    return sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / spread


def _rollup(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    # The first line is the range of addresses.
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines[1:])}
