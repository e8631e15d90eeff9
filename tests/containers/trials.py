"""What is done to the containers, one thing after the other, and what must be so after each.

The stage and the faults are not those of tests/scenarios. The engine starts processes, signals them by their ids, and
asks the database by a connection of its own; here Docker starts, kills, freezes and cuts off, its commands are what is
tried, the database has no port, and a replica may come back at another address. A stage that could be both would ask
at every step which it is. What is shared: traffic, judgement, absences and report.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.containers.cluster import REPLICAS, SERVICE, Cluster, Person, Replica
from tests.containers.engine import docker, inspect
from tests.judgement import judge
from tests.scenarios.report import Outcome
from tests.scenarios.verdict import absences

TTL, COME_BACK = 10.0, 3.0
"""Seconds of ZAP_LEASE_TTL, and beyond it until a lost node's sessions are connected elsewhere (design 5b)."""
BEHIND_POOLER = COME_BACK + 1.0
"""Seconds after Postgres until all are back: PgBouncer looks for it once a second (SERVER_LOGIN_RETRY)."""
AWAY = 1.0
"""Seconds for which a planned stop takes a session away (design 5b, at p95)."""
DRAIN = 60.0
"""Seconds that the compose file gives a stop."""
PATIENCE = 60.0
WITHOUT_REDIS, WITHOUT_POSTGRES = 60.0, 20.0

Deed = Callable[[Cluster, Outcome], Awaitable[None]]


@dataclass(frozen=True)
class Trial:
    """One thing that happens to containers."""

    name: str
    deed: Deed
    may_be_replaced: int = 0
    """Connections that WhatsApp may end by itself, because another one logs in: those of somebody who is frozen.

    Whoever stands still with all around it cannot hang up. It executes nothing more when it wakes up, but its end of
    the connection is there until somebody takes its place.
    """


async def run(cluster: Cluster, trial: Trial) -> Outcome:
    """Do it under traffic, and look at what is left."""
    outcome = Outcome()
    before = await cluster.devices()
    async with cluster.traffic():
        await asyncio.sleep(1.0)
        await trial.deed(cluster, outcome)
        await asyncio.sleep(1.0)
    replicas = await cluster.wait_healthy()
    for number, person in enumerate(cluster.people):
        await cluster.greet(person, replicas[number % len(replicas)], f"after {trial.name}")
    after = await cluster.devices()
    for person in cluster.people:
        device = after[person.session_id]
        outcome.must(device.jid == before[person.session_id].jid, f"{person.session_id} was linked anew")
        known = before[person.session_id]
        twice = max(device.overlaps - known.overlaps, device.replaced - known.replaced)
        outcome.must(twice <= trial.may_be_replaced, f"{person.session_id} was connected twice: {device}")
    await _judge_log(cluster, outcome)
    return outcome


async def _judge_log(cluster: Cluster, outcome: Outcome) -> None:
    judgement = judge(cluster.written, await cluster.logged())
    outcome.problems += judgement.problems
    # What is lost is lost once, and not again after every trial.
    lost = {one.message.message_id for one in judgement.lost}
    cluster.written = [message for message in cluster.written if message.message_id not in lost]
    outcome.say(f"{judgement} so far; a text to and from each session")


async def _taken_over(cluster: Cluster, outcome: Outcome, victim: Replica, struck_at: float, bound: float) -> None:
    """The sessions that a replica had are connected elsewhere, and those that it had not noticed nothing."""
    asked = next(one for one in await cluster.replicas() if one.container != victim.container)
    for person in cluster.people:
        session = await cluster.caller(asked).status(person.session_id)
        if session.owner.node == victim.host:
            back = await cluster.connected(person, asked, later_than=struck_at, timeout=PATIENCE)
            outcome.within(f"{person.session_id} connected elsewhere after", back - struck_at, bound)


async def _takes_part_again(cluster: Cluster, victim: Replica) -> None:
    """It is asked itself, and has another address than before perhaps."""
    await cluster.hang_up()
    returned = next(one for one in await cluster.wait_healthy() if one.container == victim.container)
    for person in cluster.people:
        await cluster.connected(person, returned, later_than=0.0, timeout=PATIENCE)


async def _victim(cluster: Cluster) -> tuple[Replica, Person]:
    """A replica that has a session."""
    person = cluster.people[0]
    return await cluster.owner(person), person


async def _kill_container(cluster: Cluster, outcome: Outcome) -> None:
    victim, _ = await _victim(cluster)
    struck_at = time.time()
    await docker("kill", victim.container)
    await cluster.hang_up()
    await _taken_over(cluster, outcome, victim, struck_at, TTL + COME_BACK)
    await docker("start", victim.container)


async def _kill_node(cluster: Cluster, outcome: Outcome) -> None:
    """Kill the node's process, as the kernel does when memory is short: it is the container's first one."""
    victim, _ = await _victim(cluster)
    state = (await inspect(victim.container))[0]["State"]
    began = state["StartedAt"]
    struck_at = time.time()
    # From outside: no process of the container itself can kill its first one.
    os.kill(state["Pid"], signal.SIGKILL)
    await _taken_over(cluster, outcome, victim, struck_at, TTL + COME_BACK)
    while (await inspect(victim.container))[0]["State"]["StartedAt"] == began:
        outcome.must(time.time() < struck_at + PATIENCE, "the container was not started again by the engine")
        if outcome.problems:
            return
        await asyncio.sleep(0.2)
    outcome.say(f"the container was up again after {time.time() - struck_at:.1f} s")
    await cluster.hang_up()


async def _cut_off(cluster: Cluster, outcome: Outcome) -> None:
    victim, _ = await _victim(cluster)
    network = f"{cluster.compose.project}_default"
    struck_at = time.time()
    await docker("network", "disconnect", network, victim.container)
    await cluster.hang_up()
    await _taken_over(cluster, outcome, victim, struck_at, TTL + COME_BACK)
    await docker("network", "connect", network, victim.container)
    await _takes_part_again(cluster, victim)


async def _freeze(cluster: Cluster, outcome: Outcome) -> None:
    """As a machine that is moved to another one: all of it stands still, for longer than its leases last."""
    victim, _ = await _victim(cluster)
    struck_at = time.time()
    await docker("pause", victim.container)
    await cluster.hang_up()
    await _taken_over(cluster, outcome, victim, struck_at, TTL + COME_BACK)
    await docker("unpause", victim.container)
    await _takes_part_again(cluster, victim)


async def _kill_postgres(cluster: Cluster, outcome: Outcome) -> None:
    (postgres,) = await cluster.compose.containers("postgres")
    struck_at = time.time()
    await docker("kill", postgres)
    await asyncio.sleep(WITHOUT_POSTGRES)
    await docker("start", postgres)
    answers_at = await cluster.database_answers(timeout=PATIENCE)
    asked = (await cluster.replicas())[0]
    for person in cluster.people:
        back = await cluster.connected(person, asked, later_than=struck_at, timeout=PATIENCE)
        outcome.within(f"{person.session_id} connected after Postgres", max(0.0, back - answers_at), BEHIND_POOLER)


async def _recreate(cluster: Cluster, outcome: Outcome) -> None:
    """A new image, say, by Compose, which has all replicas away for a moment."""
    await cluster.hang_up()
    began = time.time()
    await cluster.compose("up", "--detach", "--no-build", "--no-deps", "--force-recreate", SERVICE)
    replicas = await cluster.wait_healthy()
    for person in cluster.people:
        await cluster.connected(person, replicas[0], later_than=began, timeout=PATIENCE)
        device = (await cluster.devices())[person.session_id]
        away = " and ".join(f"{seconds:.1f} s" for seconds in absences(device, began))
        outcome.say(f"{person.session_id} was away for {away}")


async def _stop_gracefully(cluster: Cluster, outcome: Outcome) -> None:
    victim, _ = await _victim(cluster)
    began = time.time()
    await docker("stop", "--time", str(int(DRAIN)), victim.container)
    outcome.within("docker stop took", time.time() - began, DRAIN)
    code = (await inspect(victim.container))[0]["State"]["ExitCode"]
    outcome.must(code == 0, f"the container ended with {code}")
    await cluster.hang_up()
    asked = (await cluster.replicas())[0]
    moved = 0
    for person in cluster.people:
        session = await cluster.caller(asked).status(person.session_id)
        outcome.must(session.owner.node != victim.host, f"{person.session_id} was not handed over")
        device = (await cluster.devices())[person.session_id]
        for seconds in absences(device, began):
            moved += 1
            outcome.within(f"{person.session_id} was away for", seconds, AWAY)
    outcome.must(moved > 0, "no session was handed over")
    await docker("start", victim.container)


async def _down_and_up(cluster: Cluster, outcome: Outcome) -> None:
    await cluster.hang_up()
    began = time.time()
    await cluster.compose("down")
    outcome.say(f"`down` took {time.time() - began:.1f} s")
    kept = (await docker("volume", "ls", "--quiet", "--filter", f"name={cluster.compose.project}")).split()
    outcome.must(kept == [f"{cluster.compose.project}_postgres"], f"the volumes {kept} were kept")
    began = time.time()
    await cluster.compose("up", "--detach", "--no-build")
    replicas = await cluster.wait_healthy()
    outcome.say(f"{REPLICAS} replicas healthy after {time.time() - began:.1f} s")
    for person in cluster.people:
        back = await cluster.connected(person, replicas[0], later_than=began, timeout=PATIENCE)
        outcome.say(f"{person.session_id} connected {back - began:.1f} s after `up` was typed")


async def _without_redis(cluster: Cluster, outcome: Outcome) -> None:
    # The replicas may just have been started, and then a session moves to the one that has none.
    await cluster.wait_shared(PATIENCE)
    for number, person in enumerate(cluster.people):
        # The one that moved has another owner before it has logged in there.
        await cluster.greet(person, (await cluster.replicas())[0], f"before Redis goes {number}")
    logins = {name: device.logins for name, device in (await cluster.devices()).items()}
    await cluster.compose("stop", "redis")
    replicas = await cluster.replicas()
    ends = time.monotonic() + WITHOUT_REDIS
    for number, person in enumerate(cluster.people):
        await cluster.greet(person, replicas[number % len(replicas)], f"without Redis {number}")
    while time.monotonic() < ends:
        for person in cluster.people:
            await cluster.connected(person, replicas[0], later_than=0.0, timeout=5.0)
        await asyncio.sleep(1.0)
    await cluster.compose("start", "redis")
    same = logins == {name: device.logins for name, device in (await cluster.devices()).items()}
    outcome.must(same, "a session was connected anew")
    outcome.say(f"connected for all of {WITHOUT_REDIS:.0f} s, and a text to and from each session meanwhile")


TRIALS = (
    Trial("a container killed", _kill_container),
    Trial("a node killed in its container", _kill_node),
    Trial("a container taken off the network", _cut_off),
    Trial("a container frozen", _freeze, may_be_replaced=1),
    Trial("a container stopped", _stop_gracefully),
    Trial("Postgres killed", _kill_postgres),
    Trial("all replicas made anew", _recreate),
    Trial("down and up with Postgres's volume alone", _down_and_up),
    Trial("a minute without Redis", _without_redis),
)


async def hardened(cluster: Cluster, outcome: Outcome) -> None:
    """The replicas run as the image promises that they can."""
    for one in await inspect(*await cluster.compose.containers(SERVICE)):
        host = one["HostConfig"]
        outcome.must(host["ReadonlyRootfs"] is True, f"{one['Name']} can write to its disk")
        outcome.must(host["CapDrop"] == ["ALL"], f"{one['Name']} has capabilities")
        outcome.must(one["Config"]["User"] == "10001:10001", f"{one['Name']} runs as {one['Config']['User']!r}")
        binds = [mount for mount in one["Mounts"] if mount["RW"] and mount["Type"] != "tmpfs"]
        outcome.must(not binds, f"{one['Name']} has {binds}")
