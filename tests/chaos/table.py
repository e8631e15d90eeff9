"""The figures of a run, a line for each outage."""

import os
import statistics
from collections.abc import Iterator

from tests.chaos.faults import DatabaseFault
from tests.chaos.verdict import Verdict

_SHOWN = 10

HEADER = (
    f"{'fault':<31}{'s':>4} {'TLS':<4}{'written':>8}{'lost':>6}{'dup':>5}{'order':>6}{'undecr':>7}"
    f"{'back p50':>9}{'max':>6}{'starts':>7}{'overlap':>8}{'repl':>5}{'QR':>4}{'deaf':>6}{'told':>6}{'load':>6}"
)


def lines(fault: DatabaseFault, seconds: float, tls: bool, verdict: Verdict) -> Iterator[str]:
    """Yield the figures of one outage, its problems and what was lost.

    `back`, `deaf` and `told` are seconds; with a load above 1 per core they say more of the machine.
    """
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    yield (
        f"{fault.name:<31}{seconds:>4g} {'yes' if tls else 'no':<4}{verdict.messages.expected:>8}"
        f"{len(verdict.messages.lost):>6}{len(verdict.messages.twice):>5}{len(verdict.messages.disordered):>6}"
        f"{verdict.undecryptable:>7}"
        f"{statistics.median(verdict.back):>9.1f}{max(verdict.back):>6.1f}{verdict.starts:>7}{verdict.overlaps:>8}"
        f"{verdict.replaced:>5}{verdict.codes:>4}{verdict.deaf:>6.1f}{verdict.told:>6.1f}{load:>6.1f}"
    )
    if problems := verdict.problems(back_within=fault.back_within):
        yield f"    NOT GOOD: {'; '.join(problems)}"
    yield from (f"    lost: {words}" for words in verdict.lost[:_SHOWN])
    if len(verdict.lost) > _SHOWN:
        yield f"    … and {len(verdict.lost) - _SHOWN} more"
