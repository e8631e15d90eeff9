"""The report of a scenario: what was seen, what was asked for, and what of it is not so."""

import sys
from collections.abc import Awaitable
from dataclasses import dataclass, field


def say(line: str) -> None:
    """Write a line of the report."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@dataclass
class Outcome:
    """Figures, bounds and problems; filled in as the scenario goes on."""

    figures: list[str] = field(default_factory=list)
    bounds: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def say(self, figure: str) -> None:
        """Add what was seen."""
        self.figures.append(figure)

    def must(self, holds: bool, problem: str) -> None:
        """Add a problem unless this holds."""
        if not holds:
            self.problems.append(problem)

    async def check(self, assertion: Awaitable[object]) -> None:
        """Add a problem if this raises AssertionError."""
        try:
            await assertion
        except AssertionError as error:
            self.problems.append(f"AssertionError: {error}")

    def within(self, what: str, seconds: float, bound: float) -> None:
        """Add a time, its bound, and a problem if it is over the bound."""
        self.figures.append(f"{what} {seconds:.2f} s")
        self.bounds.append(f"{what} ≤ {bound:.4g} s")
        self.must(seconds <= bound, f"{what} {seconds:.2f} s, more than {bound:.4g}")

    def __str__(self) -> str:
        verdict = f"NOT GOOD: {'; '.join(self.problems)}" if self.problems else "GOOD"
        return f"    {'; '.join(self.figures)}\n    asked: {'; '.join(self.bounds) or 'as it says'}\n    {verdict}"
