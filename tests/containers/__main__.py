"""`make container-test`: builds the image, runs the compose file's three replicas, and loses containers.

python -m tests.containers --only "killed" --keep
"""

import argparse
import asyncio
import secrets
import sys
import time
from collections.abc import Sequence

from tests.containers import images, trials
from tests.containers.cluster import Cluster
from tests.containers.engine import CommandFailed, Compose, compose_command, why_not
from tests.containers.images import ROOT
from tests.containers.whatsapp import Whatsapp, whatsapp
from tests.scenarios.report import Outcome, say

PROJECT = "zap-container-test"


def main() -> int:
    """The exit code: 0 if all is as it should be, or if there is no container engine."""
    parser = argparse.ArgumentParser(prog="python -m tests.containers")
    parser.add_argument("--only", default="", help="trials with this in their name")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave the containers and the volume when it is over; the simulated WhatsApp goes",
    )
    arguments = parser.parse_args()
    if words := asyncio.run(why_not()):
        say(f"Skipped: there is no container engine here: {words}")
        return 0
    problems = asyncio.run(_run(arguments.only, keep=arguments.keep))
    say("All is as it should be." if not problems else f"{problems} were not good.")
    return 1 if problems else 0


async def _run(only: str, *, keep: bool) -> int:
    base = await images.bases()
    say("images from a registry" if base.are_real else "no registry can be reached: stand-ins out of Debian's packages")
    began = time.monotonic()
    await images.build(base)
    say(f"built in {time.monotonic() - began:.0f} s")
    outcomes = [_report("the image", await _image(base))]
    async with whatsapp() as there:
        compose = _compose(base, there, await compose_command())
        token = compose.environment["ZAP_AUTH_TOKEN"]
        # What an earlier run has left.
        await compose("down", "--volumes")
        try:
            cluster = Cluster(compose, there.control, token)
            outcomes.append(_report("three replicas on one database", await _up(cluster)))
            chosen = (trial for trial in trials.TRIALS if only in trial.name)
            outcomes.extend([_report(trial.name, await trials.run(cluster, trial)) for trial in chosen])
            await cluster.hang_up()
        except BaseException:
            sys.stderr.write(await compose("logs", "--no-color", "--tail", "80"))
            raise
        finally:
            if not keep:
                await compose("down", "--volumes")
    return sum(bool(outcome.problems) for outcome in outcomes)


def _compose(base: images.Bases, there: Whatsapp, command: Sequence[str]) -> Compose:
    environment = {
        "POSTGRES_IMAGE": base.postgres,
        "REDIS_IMAGE": base.redis,
        "PGBOUNCER_IMAGE": base.pgbouncer,
        "ZAP_IMAGE": images.SERVICE,
        "ZAP_AUTH_TOKEN": secrets.token_urlsafe(24),
        "ZAP_NODE_SECRET": secrets.token_urlsafe(24),
        **there.environment,
    }
    files = (ROOT / "docker-compose.yml", ROOT / "tests/containers/overlay.yml")
    return Compose(command, PROJECT, files, environment)


async def _image(base: images.Bases) -> Outcome:
    outcome, found = Outcome(), await images.contents(base)
    outcome.say(f"{found.megabytes:.0f} MB, of which {found.base_megabytes:.0f} are {base.python}")
    outcome.say(f"its largest packages in MiB: {found.largest}")
    outcome.must(found.user == "10001:10001", f"it runs as {found.user!r}")
    outcome.must(not found.unwanted, f"it holds {found.unwanted}")
    return outcome


async def _up(cluster: Cluster) -> Outcome:
    outcome = Outcome()
    began = time.monotonic()
    await cluster.compose("up", "--detach", "--no-build")
    one, two, three = await cluster.wait_healthy()
    outcome.say(f"healthy {time.monotonic() - began:.1f} s after `up` was typed, on an empty database")
    await cluster.pair("anna", asked=one, shown_by=two)
    await cluster.pair("berta", asked=two, shown_by=three)
    for person, replica in zip(cluster.people, (two, three), strict=True):
        await cluster.greet(person, replica, "hello")
    owners = [(await cluster.owner(person)).name for person in cluster.people]
    outcome.say(f"paired through different replicas, owned by {' and '.join(owners)}")
    rows = await cluster.sql(
        "SELECT session_id, status, has_creds FROM whatsapp_session WHERE status = 'CONNECTED' ORDER BY 1"
    )
    outcome.must(rows == [["anna", "CONNECTED", "t"], ["berta", "CONNECTED", "t"]], f"whatsapp_session says {rows}")
    await trials.hardened(cluster, outcome)
    return outcome


def _report(name: str, outcome: Outcome) -> Outcome:
    say(f"{name}\n{outcome}")
    return outcome


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandFailed as error:
        sys.exit(str(error))
