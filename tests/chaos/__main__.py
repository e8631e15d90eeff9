"""`make chaos`: what three nodes and the event log must show, three nodes struck by chance, outages of the database.

python -m tests.chaos trials --sessions 20 --crowd 100 --only "kill -9"
python -m tests.chaos events --messages 10000 --sessions 10 --seed 7
python -m tests.chaos outages --faults hung "cut off" --seconds 5 --tls no --seed 7
python -m tests.chaos nodes --steps 100 --sessions 9 --seed 7
"""

import argparse
import asyncio
import itertools
import random
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from dev import EmbeddedValkey
from simulator.process import PRELOAD, SimulatorProcess
from tests.chaos import table, trials
from tests.chaos.estate import Estate, Tools, Way
from tests.chaos.events import trial as events
from tests.chaos.faults import FAULTS, DatabaseFault
from tests.chaos.nodes import STRIKES, Run
from tests.chaos.outages import RATE, suffer
from tests.chaos.places import three_places
from tests.chaos.small_disk import can_mount
from tests.chaos.trials import Size
from tests.chaos.world import world
from tests.scenarios.faults import named
from tests.scenarios.report import say
from tests.scenarios.servers import open_folder, servers


def arguments() -> argparse.Namespace:
    """What to do."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    commands = parser.add_subparsers(dest="command", required=True)
    outages = commands.add_parser("outages", help="outages of the database")
    outages.add_argument("--faults", nargs="*", default=[""], help="parts of the names of those to have; all if absent")
    outages.add_argument("--seconds", nargs="*", type=float, default=[1.0, 5.0, 60.0])
    outages.add_argument("--tls", nargs="*", choices=["no", "yes"], default=["no", "yes"])
    outages.add_argument("--sessions", type=int, default=4)
    outages.add_argument("--rate", type=float, default=RATE, help="messages a second, to all sessions together")
    outages.add_argument("--times", type=int, default=1, help="how often to have each")
    outages.add_argument("--stand-ins", action="store_true", help="even where the real programs are installed")
    outages.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    nodes = commands.add_parser("nodes", help="three nodes, struck by chance")
    nodes.add_argument("--steps", type=int, default=100)
    nodes.add_argument("--sessions", type=int, default=9)
    nodes.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    nodes.add_argument("--strikes", nargs="*", default=[""], help="parts of the names of those to have; all if absent")
    shown = commands.add_parser("trials", help="what three nodes must show, with its bounds")
    shown.add_argument("--sessions", type=int, default=20)
    shown.add_argument("--crowd", type=int, default=100, help="sessions that three nodes claim at once")
    shown.add_argument("--only", default="", help="a part of the names of those to have")
    watched = commands.add_parser("events", help="the event log and those who watch it, everything killed at random")
    watched.add_argument("--messages", type=int, default=10_000)
    watched.add_argument("--sessions", type=int, default=10)
    watched.add_argument("--rate", type=float, default=40.0, help="messages a second, to all sessions together")
    watched.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    return parser.parse_args()


def wanted(given: argparse.Namespace, way: Way) -> Iterator[tuple[DatabaseFault, float]]:
    """The outages to have on one kind of estate."""
    for fault in named(FAULTS[way], given.faults):
        for seconds in given.seconds if fault.lasts else [0.0]:
            yield from [(fault, seconds)] * given.times


async def main() -> int:
    """Run what was asked for; 0 if all is as it should be."""
    given = arguments()
    commands = {"nodes": strike_nodes, "outages": have_outages, "trials": make_trials, "events": lose_events}
    return await commands[given.command](given)


async def make_trials(given: argparse.Namespace) -> int:
    """Each once; 1 if any was not good."""
    say(
        f"{given.sessions} sessions, {given.crowd} where all are claimed at once; {trials.RATE:g} messages a second"
        " to each"
    )
    async with servers(durable=True) as there:
        failed = await trials.make(there, Size(given.sessions, given.crowd), given.only, say)
    say(f"{failed} trials were not good." if failed else "All is as it should be.")
    return min(failed, 1)


async def lose_events(given: argparse.Namespace) -> int:
    """While phones write; 1 if the log, or what a consumer got of it, is not as it should be."""
    say(f"seed {given.seed}, {given.messages} messages to {given.sessions} sessions, {given.rate:g} a second")
    size = events.Size(given.messages, given.sessions, given.rate)
    with open_folder() as folder:
        async with servers(durable=True) as there:
            outcome = await events.Trial(there, folder, size, given.seed, say).run()
    say(str(outcome))
    return min(len(outcome.problems), 1)


async def strike_nodes(given: argparse.Namespace) -> int:
    """Three nodes on servers of their own. Raises AssertionError with what must not be."""
    say(f"seed {given.seed}, {given.sessions} sessions, {given.steps} steps")
    async with servers(durable=True) as there:
        environment = there.environment()
        sql = await asyncpg.connect(there.postgres.url)
        try:
            async with three_places(environment, there.simulator.control, given.sessions) as (nodes, places):
                strikes = named(STRIKES, given.strikes)
                say(str(await Run(nodes, places, given.seed, say, strikes).steps(given.steps, sql)))
        finally:
            await sql.close()
    return 0


async def have_outages(given: argparse.Namespace) -> int:
    """Outages of the database; 1 if any was not survived as it should be."""
    tools = Tools(has_small_disk=can_mount()) if given.stand_ins else Tools.of_this_machine()
    logs = Path(tempfile.mkdtemp(prefix="zap-chaos-logs-"))
    say(
        f"seed {given.seed}, {given.sessions} sessions, {given.rate:g} messages a second; the nodes' logs are in {logs}"
    )
    for sentence in tools.missing():
        say(f"LEFT OUT: {sentence}")
    say(table.HEADER)
    chance, failed = random.Random(given.seed), 0
    with open_folder() as folder:
        async with EmbeddedValkey(folder, die_with_starter=True) as valkey, SimulatorProcess() as simulator:
            environment = {"REDIS_URL": valkey.url, "ZAP_WORKER_PRELOAD": PRELOAD, **simulator.environment()}
            for tls, way in itertools.product(given.tls, tools.ways):
                if not (outages := list(wanted(given, way))):
                    continue
                estate = Estate(folder, way, tls=tls == "yes", tools=tools)
                with (logs / f"{way.name.lower()}-{'tls' if estate.tls else 'plain'}.log").open("w+b") as output:
                    async with estate, world(estate, environment, simulator.control, given.sessions, output) as there:
                        for fault, seconds in outages:
                            verdict = await suffer(there, fault, seconds, chance, given.rate)
                            failed += bool(verdict.problems(back_within=fault.back_within))
                            for line in table.lines(fault, seconds, estate.tls, verdict):
                                say(line)
    say(f"{failed} outages had something that must not be." if failed else "All is as it should be.")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
