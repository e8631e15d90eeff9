"""How long a session is away when something happens to its process: `python -m benchmarks.faults [--runs N] [FAULT]`.

On the real client, a simulated WhatsApp, embedded Postgres and Valkey. Each fault is the session's first, as far as its
back-off is concerned. The machine should do nothing else: what is said of its load comes with the figures.
"""

import argparse
import asyncio
import functools
import os
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from benchmarks.stage import Deployment, deployment
from tests.e2e import faults
from tests.e2e.downtime import away, forget_failures

SESSION = "shop-0"
ONLOOKERS = 3

Fault = Callable[[Deployment, int], Awaitable[None] | None]


async def event_that_sticks(there: Deployment, pid: int) -> None:
    """The library's next event never comes back from its callback."""
    faults.provoke(pid, "stuck-event")
    await there.simulator.write(there.friend, there.phones[SESSION], "never seen")


def with_the_zygote(number: signal.Signals) -> Fault:
    """The session's process dies, and so does, or is frozen, what forks the next one."""

    def happen(there: Deployment, pid: int) -> None:
        os.kill(there.node.processes()[1].pid, number)
        os.kill(pid, signal.SIGKILL)

    return happen


FAULTS: dict[str, tuple[float, Fault]] = {
    "killed": (2, lambda _, pid: os.kill(pid, signal.SIGKILL)),
    "segmentation-fault": (2, lambda _, pid: faults.provoke(pid, "segfault")),
    "abort": (2, lambda _, pid: faults.provoke(pid, "abort")),
    "go-panic": (2, lambda _, pid: faults.provoke(pid, "panic")),
    "killed-with-zygote": (2, with_the_zygote(signal.SIGKILL)),
    "frozen": (6, lambda _, pid: os.kill(pid, signal.SIGSTOP)),
    "interpreter-held": (6, lambda _, pid: faults.provoke(pid, "hold-interpreter")),
    "deaf": (7, lambda _, pid: faults.provoke(pid, "deaf")),
    "event-stuck": (7, event_that_sticks),
    "killed-and-zygote-frozen": (5, with_the_zygote(signal.SIGSTOP)),
}
"""What can happen, and the bound in seconds."""


async def measure(runs: int, names: list[str]) -> bool:
    """Print a line for each fault; whether all bounds were met."""
    met = True
    async with deployment(1 + ONLOOKERS, preload=faults.PRELOAD) as there:
        for name in names:
            bound, fault = FAULTS[name]
            taken = []
            for _ in range(runs):
                await forget_failures(there.node, SESSION)
                happen = functools.partial(fault, there)
                taken.append(await away(there.node, there.simulator, SESSION, there.jids[SESSION], happen))
            status = [each.until_status for each in taken]
            login = [each.until_login for each in taken]
            met = met and max(status) <= bound
            sys.stdout.write(
                f"{name:26} bound {bound:g} s   Status p50 {statistics.median(status):.2f} max {max(status):.2f}"
                f"   login p50 {statistics.median(login):.2f} max {max(login):.2f}   load {os.getloadavg()[0]:.1f}\n"
            )
            sys.stdout.flush()
    return met


def main() -> int:
    """Measure; 1 if a bound was not met."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("faults", nargs="*", choices=[[], *FAULTS], default=[])
    arguments = parser.parse_args()
    began = time.monotonic()
    met = asyncio.run(measure(arguments.runs, arguments.faults or list(FAULTS)))
    sys.stdout.write(f"{arguments.runs} runs each, {time.monotonic() - began:.0f} s in all\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
