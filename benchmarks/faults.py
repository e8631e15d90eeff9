"""How long a session is away when something happens to its process: `python -m benchmarks.faults [--runs N] [FAULT]`.

On the real client, a simulated WhatsApp, embedded Postgres and Valkey. Each fault is the session's first, as far as its
back-off is concerned. The machine should do nothing else: what is said of its load comes with the figures.
"""

import argparse
import asyncio
import contextlib
import functools
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from dev import EmbeddedPostgres, EmbeddedValkey
from tests.e2e import faults
from tests.e2e.people import new_phone, pair
from tests.e2e.recovery import away, forget_failures
from tests.service_process import ServiceProcess
from tests.simulator.control import SimulatorControl
from tests.simulator.process import SimulatorProcess

ONLOOKERS = 3


@dataclass(frozen=True)
class House:
    """A node with the session that things happen to, and some more."""

    node: ServiceProcess
    simulator: SimulatorControl
    phone: str
    friend: str

    def zygote(self) -> int:
        """The zygote's process id."""
        return int(self.node.processes()[1].pid)


Fault = Callable[[House, int], Awaitable[None] | None]


async def event_that_sticks(house: House, pid: int) -> None:
    """The library's next event never comes back from its callback."""
    faults.provoke(pid, "stuck-event")
    await house.simulator.write(house.friend, house.phone, "never seen")


def with_the_zygote(number: signal.Signals) -> Fault:
    """The session's process dies, and so does, or is frozen, what forks the next one."""

    def happen(house: House, pid: int) -> None:
        os.kill(house.zygote(), number)
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


@contextlib.asynccontextmanager
async def house() -> AsyncIterator[tuple[House, str]]:
    """A node with paired sessions, and the address of the first one's device."""
    folder = Path(tempfile.mkdtemp(prefix="zap-benchmark-"))
    # Root's Postgres runs as nobody, who must be able to pass.
    os.chmod(folder, 0o711)  # noqa: PTH101, S103
    try:
        async with (
            EmbeddedPostgres(folder, durable=False, die_with_starter=True) as postgres,
            EmbeddedValkey(folder, die_with_starter=True) as valkey,
            SimulatorProcess() as simulator,
        ):
            environment = {
                "DATABASE_URL": postgres.url,
                "REDIS_URL": valkey.url,
                "ZAP_WORKER_PRELOAD": faults.PRELOAD,
                **simulator.environment(),
            }
            async with ServiceProcess(environment) as node:
                phones = [await new_phone(simulator.control, f"shop-{number}") for number in range(1 + ONLOOKERS)]
                jids = [
                    await pair(node, simulator.control, f"shop-{number}", phone) for number, phone in enumerate(phones)
                ]
                friend = await new_phone(simulator.control, "Friend")
                yield House(node, simulator.control, phones[0], friend), jids[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def measure(runs: int, names: list[str]) -> bool:
    """Print a line for each fault; whether all bounds were met."""
    met = True
    async with house() as (subject, jid):
        for name in names:
            bound, fault = FAULTS[name]
            taken = []
            for _ in range(runs):
                await forget_failures(subject.node, "shop-0")
                happen = functools.partial(fault, subject)
                taken.append(await away(subject.node, subject.simulator, "shop-0", jid, happen))
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
