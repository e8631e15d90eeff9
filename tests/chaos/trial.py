"""The outcome of a trial: what was seen, what was asked for, and what of it is not so."""

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """Filled in as the trial goes on."""

    figures: list[str] = field(default_factory=list)
    bounds: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def say(self, figure: str) -> None:
        """Something that was seen."""
        self.figures.append(figure)

    def must(self, holds: bool, problem: str) -> None:
        """Something that must be so, and what to say if it is not."""
        if not holds:
            self.problems.append(problem)

    def within(self, what: str, seconds: float, bound: float) -> None:
        """A time, and the time that was asked for."""
        self.figures.append(f"{what} {seconds:.2f} s")
        self.bounds.append(f"{what} ≤ {bound:.4g} s")
        self.must(seconds <= bound, f"{what} {seconds:.2f} s, more than {bound:.4g}")

    def __str__(self) -> str:
        verdict = f"NOT GOOD: {'; '.join(self.problems)}" if self.problems else "GOOD"
        return f"    {'; '.join(self.figures)}\n    asked: {'; '.join(self.bounds) or 'as it says'}\n    {verdict}"
