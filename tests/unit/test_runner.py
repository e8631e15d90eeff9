"""A runner with a scripted process and a store in memory: which end leads to what, and what is left when it is over."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from service.domain import observations as seen
from service.domain import start_scheduler
from service.domain.backoff import STEADY_S
from service.domain.disconnect_policy import Cause
from service.domain.errors import LeaseLost, NotFound, Unavailable
from service.domain.lease import Lease, LeaseTimes
from service.domain.media import MediaKind
from service.domain.records import Account, TypedPayload
from service.domain.restart_policy import MOST_SHORT_LOGINS
from service.domain.session import Condition, Credentials, Desired, State, Transition
from service.domain.start_scheduler import Lane
from service.ports.bus import Publisher
from service.ports.eventlog import Appended, EventLog
from service.ports.processes import StartOrder, StartPermit
from service.ports.sessions import Decide, Resume
from service.sessions.runner import Runner, RunnerPorts
from service.sessions.start_limiter import StartLimiter
from tests.eventually import eventually

NODE = uuid4()
TIMES = LeaseTimes(10.0)
JID = "49:1@s.whatsapp.net"
PATIENCE = 5.0
LOGIN = seen.Connected(JID, "", "Anna")


class Process:
    """A session process that reports what the test has it report."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[seen.Observation] = asyncio.Queue()
        self.confirmed: list[int] = []
        self.stops = 0
        self.kills = 0
        self.permitted_until = 0.0

    async def observations(self) -> AsyncIterator[Sequence[seen.Observed]]:
        for number in itertools.count(1):
            observation = await self.reports.get()
            yield [seen.Observed(observation, datetime.now(UTC), number)]
            if isinstance(observation, seen.Ended):
                return

    def permit(self, until: float) -> None:
        self.permitted_until = until

    def confirm(self, number: int) -> None:
        self.confirmed.append(number)

    async def stop(self, grace: float) -> None:
        self.stops += 1

    async def kill(self) -> None:
        self.kills += 1
        self.reports.put_nowait(seen.Ended(Cause.STOPPED))

    async def send(self, to: str, content: TypedPayload, timeout: float, secret: bytes = b"") -> Any: ...

    async def call(self, request: TypedPayload, timeout: float) -> Any: ...

    async def upload(self, kind: MediaKind, descriptor: int, size: int, timeout: float) -> Any: ...

    async def request_pairing_code(self, phone: str, timeout: float) -> str:
        return ""

    async def log_out(self, timeout: float) -> None: ...


@dataclass
class World:
    """Everything around the runner, with faults to be switched on."""

    condition: Condition = field(
        default_factory=lambda: Condition(Desired.ACTIVE, State.CONNECTING, credentials=Credentials.CONFIRMED)
    )
    epoch: int = 0
    resume: Resume = field(default_factory=lambda: Resume(wanted=True, jid=JID))
    processes: list[Process] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    swept: int = 0
    begin_fault: Exception | None = None
    prepare_fault: Exception | None = None
    start_fault: Exception | None = None
    account_fault: Exception | None = None
    sweep_fault: Exception | None = None
    while_starting: Callable[[], None] | None = None
    while_preparing: Callable[[], Awaitable[None]] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    active_at: float = 0.0
    proxy_url: str = ""
    """Of the session, as the last Update left it."""
    orders: list[StartOrder] = field(default_factory=list)

    async def begin_epoch(self, session_id: str, incarnation: UUID, ttl: float) -> Lease:
        if self.begin_fault is not None:
            raise self.begin_fault
        self.epoch += 1
        return Lease(session_id, self.epoch, incarnation)

    async def release(self, lease: Lease) -> None:
        assert lease.epoch == self.epoch
        self.released.append(lease.session_id)

    async def prepare(self, lease: Lease) -> Resume:
        if self.prepare_fault is not None:
            raise self.prepare_fault
        if self.while_preparing is not None:
            await self.while_preparing()
        return self.resume

    async def delete_discarded_devices(self, lease: Lease) -> None:
        self.swept += 1
        if self.sweep_fault is not None:
            raise self.sweep_fault

    async def observe(
        self, lease: Lease, decide: Decide, account: Account | None
    ) -> tuple[Any, Transition, Sequence[Any]]:
        if account is not None and self.account_fault is not None:
            raise self.account_fault
        transition = decide(self.condition, datetime.now(UTC))
        self.condition = transition.condition
        self.changed.set()
        return SimpleNamespace(active_at=self.active_at, proxy_url=self.proxy_url), transition, ()

    async def show_code(self, lease: Lease, code: Any, identity: bytes) -> Sequence[Any]:
        return ()

    async def start(self, order: StartOrder) -> Process:
        if self.while_starting is not None:
            self.while_starting()
        if self.start_fault is not None:
            raise self.start_fault
        self.orders.append(order)
        process = Process()
        process.permitted_until = order.permitted_until
        self.processes.append(process)
        self.changed.set()
        return process


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """For people, structlog draws a fault with everything in reach of it: seconds on a busy machine."""
    with capture_logs():
        yield


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def gate() -> StartLimiter:
    """Turns for everybody; tests that need a queue make it empty."""
    return StartLimiter(rate=4.0, chance=lambda: 0.0)


@pytest.fixture
def ports(world: World, gate: StartLimiter) -> RunnerPorts:
    anything: Any = world
    return RunnerPorts(
        owned=anything,
        leases=anything,
        events=create_autospec(EventLog),
        pool=anything,
        publisher=create_autospec(Publisher),
        times=TIMES,
        gate=gate,
    )


@pytest.fixture
def runner(ports: RunnerPorts) -> Runner:
    return Runner("anna", NODE, ports)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it would have waited after each process; it does not."""
    waits: list[float] = []

    async def note(self: Runner) -> None:
        waits.append(self._sink.restart_wait_s)
        await asyncio.sleep(0)

    monkeypatch.setattr(Runner, "_wait_until_due", note)
    return waits


async def finish(running: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(PATIENCE):
        await running


async def test_a_process_that_dies_is_replaced_and_a_node_that_stops_releases(world: World, runner: Runner) -> None:
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    world.processes[0].reports.put_nowait(seen.Ended(Cause.PROCESS_DIED))
    await eventually(lambda: len(world.processes) == 2)
    assert world.epoch == 2
    runner.hand_over_or_stop()
    await eventually(lambda: world.processes[1].stops == 1)
    world.processes[1].reports.put_nowait(seen.Ended(Cause.STOPPED))
    await finish(running)
    assert world.released == ["anna"]
    assert world.swept == 1


@pytest.mark.parametrize("observation", [seen.Disconnected(), seen.KeepAliveTimeout(), seen.Connected("", "", "")])
async def test_a_process_with_the_proxy_of_before_is_replaced_when_it_connects_anew(
    world: World, runner: Runner, observation: seen.Observation
) -> None:
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    world.processes[0].reports.put_nowait(observation)
    await eventually(world.processes[0].reports.empty)
    world.proxy_url = "http://other"
    world.processes[0].reports.put_nowait(seen.PushNameChanged("Anna"))
    await eventually(world.processes[0].reports.empty)
    await asyncio.sleep(0.01)
    assert world.processes[0].stops == 0
    world.processes[0].reports.put_nowait(observation)
    await eventually(lambda: world.processes[0].stops == 1)
    world.resume = Resume(wanted=True, jid=JID, proxy_url="http://other")
    world.processes[0].reports.put_nowait(seen.Ended(Cause.STOPPED))
    await eventually(lambda: len(world.processes) == 2)
    assert world.orders[1].proxy_url == "http://other"
    world.processes[1].reports.put_nowait(observation)
    await eventually(world.processes[1].reports.empty)
    await asyncio.sleep(0.01)
    assert world.processes[1].stops == 0
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)


async def test_what_is_said_at_every_look_stops_a_process_once(world: World, runner: Runner) -> None:
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    for _ in range(20):
        runner.unwanted()
    await asyncio.sleep(0.01)
    assert world.processes[0].stops == 1
    world.resume = Resume(wanted=False)
    world.processes[0].reports.put_nowait(seen.Ended(Cause.STOPPED))
    await finish(running)


@pytest.mark.parametrize("ask", [Runner.unwanted, Runner.restart, Runner.hand_over_or_stop])
async def test_what_is_asked_while_a_process_is_made_is_done_to_it(
    world: World, runner: Runner, ask: Callable[[Runner], None]
) -> None:
    world.while_starting = lambda: ask(runner)
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1 and world.processes[0].stops == 1)
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)


async def test_a_process_that_was_being_made_when_the_lease_was_lost_is_killed_not_asked(
    world: World, runner: Runner
) -> None:
    world.while_starting = runner.lose
    await finish(asyncio.create_task(runner.run()))
    assert world.processes[0].stops == 0
    assert world.processes[0].kills >= 1
    assert world.released == []


async def test_a_lease_that_somebody_else_has_is_not_released(world: World, runner: Runner) -> None:
    world.begin_fault = LeaseLost("taken")
    await finish(asyncio.create_task(runner.run()))
    assert world.released == []


async def test_what_comes_in_when_the_lease_is_lost_is_refused_and_ends_the_process(
    world: World, ports: RunnerPorts, runner: Runner
) -> None:
    refuse: Any = ports.events.append
    refuse.side_effect = LeaseLost("taken")
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    world.processes[0].reports.put_nowait(seen.InboundEvent("MESSAGE_RECEIVED", b""))
    await finish(running)
    assert refuse.await_count == 1
    assert world.processes[0].kills >= 1
    assert world.released == []


async def test_what_comes_in_is_confirmed_when_it_is_appended_and_not_before(
    world: World, ports: RunnerPorts, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sessions.observation_sink.DATABASE_RETRY_S", 0.0)
    append: Any = ports.events.append
    tries = 0

    async def fail_twice(*_: object) -> Appended:
        nonlocal tries
        tries += 1
        assert world.processes[0].confirmed == []
        if tries < 3:
            raise Unavailable("away")
        return Appended()

    append.side_effect = fail_twice
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    world.processes[0].reports.put_nowait(seen.InboundEvent("MESSAGE_RECEIVED", b""))
    await eventually(lambda: world.processes[0].confirmed == [1])
    assert tries == 3
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)


async def test_what_comes_in_for_a_session_that_was_deleted_is_not_confirmed_and_its_process_is_stopped(
    world: World, ports: RunnerPorts, runner: Runner
) -> None:
    refuse: Any = ports.events.append
    refuse.side_effect = NotFound("deleted")
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    world.processes[0].reports.put_nowait(seen.InboundEvent("MESSAGE_RECEIVED", b""))
    await eventually(lambda: world.processes[0].stops == 1)
    assert world.processes[0].confirmed == []
    world.resume = Resume(wanted=False)
    world.processes[0].reports.put_nowait(seen.Ended(Cause.STOPPED))
    await finish(running)
    assert world.released == ["anna"]


async def test_a_fault_while_a_process_runs_is_an_end_like_others_and_waits_longer_each_time(
    world: World, runner: Runner, waits: list[float]
) -> None:
    world.account_fault = ValueError("what the database cannot hold")
    running = asyncio.create_task(runner.run())
    for number in range(1, 6):
        await eventually(lambda number=number: len(world.processes) == number)  # type: ignore[misc]
        world.processes[-1].reports.put_nowait(LOGIN)
        await eventually(lambda number=number: len(waits) == number)  # type: ignore[misc]
        assert world.condition.reason == "CLIENT_ERROR"
        assert world.processes[number - 1].kills >= 1
    assert waits[0] <= 0.1
    assert waits[-1] >= 4.0
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)
    assert world.released == ["anna"]


async def test_a_code_that_holds_no_key_ends_its_process_and_not_the_runner(world: World, runner: Runner) -> None:
    world.condition = Condition(Desired.ACTIVE, State.PAIRING)
    world.resume = Resume(wanted=True)
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    world.processes[0].reports.put_nowait(seen.CodeShown("no code at all", 1, timedelta(seconds=60)))
    await eventually(lambda: len(world.processes) == 2)
    assert world.condition.reason == "CLIENT_ERROR"
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)


async def test_no_process_to_be_had_is_waited_out(world: World, runner: Runner) -> None:
    world.start_fault = Unavailable("no memory")
    running = asyncio.create_task(runner.run())
    await eventually(lambda: world.condition.reason == "PROCESS_DIED")
    world.start_fault = None
    await eventually(lambda: len(world.processes) == 1)
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)
    assert world.processes[0].kills >= 1


@pytest.mark.parametrize("fault", ["begin_fault", "prepare_fault"])
async def test_a_fault_before_a_process_is_the_callers_to_know_and_the_lease_is_released(
    world: World, runner: Runner, fault: str
) -> None:
    setattr(world, fault, RuntimeError("a table is missing"))
    world.sweep_fault = RuntimeError("a table is missing")
    with pytest.raises(RuntimeError, match="missing"):
        await finish(asyncio.create_task(runner.run()))
    assert world.released == ["anna"]


async def test_a_permit_reaches_the_process_and_calls_end_with_it(world: World, runner: Runner) -> None:
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    assert runner.connection is None
    world.processes[0].reports.put_nowait(LOGIN)
    await eventually(lambda: runner.connection is not None)
    until = time.monotonic() + 100
    runner.permit(until)
    runner.permit(until - 50)
    assert runner.safe_until == world.processes[0].permitted_until == until
    runner.lose()
    assert runner.connection is None
    await finish(running)


# --- its waits --------------------------------------------------------------------------------------------------


async def end(world: World, waits: list[float], *observations: seen.Observation) -> None:
    """Have the process that runs now report this, its end last, and wait until the next one runs."""
    number = len(world.processes)
    for observation in observations:
        world.processes[-1].reports.put_nowait(observation)
    await eventually(lambda: len(waits) == number and len(world.processes) == number + 1)


async def test_a_session_whose_database_is_lost_never_waits_for_more_than_a_second(
    world: World, runner: Runner, waits: list[float]
) -> None:
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    for _ in range(5):
        await end(world, waits, seen.Ended(Cause.DATABASE_LOST))
    assert waits[0] <= 0.1
    assert all(0.5 <= wait <= 1.0 for wait in waits[1:])
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)


async def test_one_that_logs_in_and_falls_at_once_again_and_again_is_no_storm_of_logins(
    world: World, runner: Runner, waits: list[float]
) -> None:
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    for _ in range(MOST_SHORT_LOGINS + 2):
        await end(world, waits, LOGIN, seen.Ended(Cause.DATABASE_LOST))
    assert all(wait <= 1.0 for wait in waits[:MOST_SHORT_LOGINS])
    assert waits[MOST_SHORT_LOGINS + 1] >= 16.0
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)


async def test_whoever_is_cut_short_twice_keeps_the_lease_of_a_process_that_may_live(
    world: World, runner: Runner
) -> None:
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    dies = asyncio.Event()
    world.processes[0].kill = dies.wait  # type: ignore[method-assign,assignment]
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0.01)
    await asyncio.wait((running,), timeout=PATIENCE)
    assert running.done()
    assert (world.released, world.swept) == ([], 0)
    dies.set()


async def test_a_session_that_was_replaced_waits_for_a_ttl_and_the_second_time_for_nothing(
    world: World, runner: Runner, waits: list[float]
) -> None:
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    await end(world, waits, LOGIN, seen.Ended(Cause.STREAM_REPLACED))
    assert waits == [TIMES.ttl]
    world.processes[1].reports.put_nowait(seen.Ended(Cause.STREAM_REPLACED))
    await finish(running)
    assert world.condition.state is State.FAILED
    assert len(waits) == 1
    assert world.released == ["anna"]


@pytest.mark.parametrize(("steady", "are_forgotten"), [(0.0, True), (STEADY_S, False)])
async def test_only_a_connection_that_lasted_has_failures_forgotten(
    world: World,
    runner: Runner,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    steady: float,
    are_forgotten: bool,
) -> None:
    monkeypatch.setattr("service.domain.restart_policy.STEADY_S", steady)
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    for _ in range(3):
        await end(world, waits, seen.Ended(Cause.PROCESS_DIED))
    await end(world, waits, LOGIN, seen.Ended(Cause.PROCESS_DIED))
    assert waits[2] >= 1.0
    assert waits[3] <= 0.1 if are_forgotten else waits[3] >= 2.0
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)


# --- its turn ---------------------------------------------------------------------------------------------------


async def the_only_turn(gate: StartLimiter) -> StartPermit:
    """Nobody else starts before it is given back, nor for a long time if it is used."""
    (turn,) = await gate.acquire(Lane.RESTART, 1)
    return turn


@pytest.fixture
async def slow_gate() -> StartLimiter:
    return StartLimiter(rate=0.02, chance=lambda: 0.0)


@pytest.fixture
def slow_ports(ports: RunnerPorts, slow_gate: StartLimiter) -> RunnerPorts:
    return replace(ports, gate=slow_gate)


def assert_nothing_is_left_at(gate: StartLimiter) -> None:
    """The next who comes has the turn at once, and nobody else waits."""
    assert not any(gate._scheduler._lanes.values())
    with gate.join(Lane.BACKOFF) as waiter:
        assert waiter.is_granted


async def test_a_claim_that_has_a_turn_does_not_pay_twice_and_a_restart_pays(
    world: World, slow_ports: RunnerPorts, slow_gate: StartLimiter
) -> None:
    (turn,) = await slow_gate.acquire(Lane.CLAIM, 1)
    runner = Runner("anna", NODE, slow_ports, turn)
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    assert world.orders[0].lane is Lane.CLAIM
    world.processes[0].reports.put_nowait(seen.Ended(Cause.PROCESS_DIED))
    await eventually(lambda: runner.is_waiting)
    assert len(world.processes) == 1
    assert world.epoch == 1, "it waits before it begins anything"
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)
    assert not runner.is_waiting
    assert not any(slow_gate._scheduler._lanes.values())


@pytest.mark.parametrize("ask", [Runner.hand_over_or_stop, Runner.lose, Runner.unwanted])
async def test_what_is_not_to_be_started_any_more_leaves_the_queue_at_once(
    world: World, slow_ports: RunnerPorts, slow_gate: StartLimiter, ask: Callable[[Runner], None]
) -> None:
    turn = await the_only_turn(slow_gate)
    runner = Runner("anna", NODE, slow_ports)
    running = asyncio.create_task(runner.run())
    await eventually(lambda: runner.is_waiting)
    world.resume = Resume(wanted=False)
    ask(runner)
    await finish(running)
    assert world.processes == []
    assert world.released == ([] if ask is Runner.lose else ["anna"])
    turn.give_back()
    assert_nothing_is_left_at(slow_gate)


@pytest.mark.parametrize("ask", [Runner.hand_over_or_stop, Runner.lose])
async def test_a_turn_that_comes_in_the_moment_of_the_end_is_given_back(
    world: World, slow_ports: RunnerPorts, slow_gate: StartLimiter, ask: Callable[[Runner], None]
) -> None:
    turn = await the_only_turn(slow_gate)
    runner = Runner("anna", NODE, slow_ports)
    running = asyncio.create_task(runner.run())
    await eventually(lambda: runner.is_waiting)
    turn.give_back()
    ask(runner)
    await finish(running)
    assert world.processes == []
    assert_nothing_is_left_at(slow_gate)


async def test_one_that_is_restarted_while_it_waits_is_started_once_and_in_its_turn(
    world: World, slow_ports: RunnerPorts, slow_gate: StartLimiter
) -> None:
    turn = await the_only_turn(slow_gate)
    runner = Runner("anna", NODE, slow_ports)
    running = asyncio.create_task(runner.run())
    await eventually(lambda: runner.is_waiting)
    runner.restart()
    # It has looked whether it is still wanted.
    await eventually(lambda: runner.is_waiting and world.epoch == 1)
    assert world.processes == []
    turn.give_back()
    await eventually(lambda: len(world.processes) == 1)
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)
    assert len(world.processes) == 1


async def test_one_that_nobody_wants_while_all_turns_are_taken_does_not_wait_for_one(
    world: World, slow_ports: RunnerPorts, slow_gate: StartLimiter
) -> None:
    runner = Runner("anna", NODE, slow_ports, await the_only_turn(slow_gate))
    running = asyncio.create_task(runner.run())
    await eventually(lambda: len(world.processes) == 1)
    runner.unwanted()
    world.resume = Resume(wanted=False)
    world.processes[0].reports.put_nowait(seen.Ended(Cause.STOPPED))
    await finish(running)
    assert world.released == ["anna"]


async def test_a_turn_that_no_process_came_of_is_somebody_elses(
    world: World, slow_ports: RunnerPorts, slow_gate: StartLimiter
) -> None:
    world.resume = Resume(wanted=True, missing=True)
    runner = Runner("anna", NODE, slow_ports, await the_only_turn(slow_gate))
    await finish(asyncio.create_task(runner.run()))
    assert world.condition.state is State.LOGGED_OUT
    assert_nothing_is_left_at(slow_gate)


async def test_a_turn_that_was_held_for_too_long_is_waited_for_again(
    world: World, ports: RunnerPorts, gate: StartLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    (turn,) = await gate.acquire(Lane.CLAIM, 1)

    async def hang() -> None:
        """The database did not answer for longer than a turn may be held; all other turns are taken meanwhile."""
        with monkeypatch.context() as patched:
            patched.setattr(start_scheduler, "PERMIT_TTL_S", 0.0)
            assert not gate._scheduler.use(0, time.monotonic())
        for other in await gate.acquire(Lane.CLAIM, 10):
            other.use()

    world.while_preparing = hang
    running = asyncio.create_task(Runner("anna", NODE, ports, turn).run())
    await eventually(lambda: len(world.processes) == 1)
    assert world.orders[0].lane is Lane.RESTART, "on another turn than the claim's"
    assert world.epoch == 1, "and without beginning anew"
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)


@pytest.mark.parametrize(
    ("condition", "failures", "lane"),
    [
        (Condition(Desired.ACTIVE, State.PAIRING), 1, Lane.PAIRING),
        (Condition(Desired.ACTIVE, State.CONNECTING, credentials=Credentials.CONFIRMED), 1, Lane.RESTART),
        (Condition(Desired.ACTIVE, State.CONNECTING, credentials=Credentials.CONFIRMED), 2, Lane.BACKOFF),
        (Condition(Desired.ACTIVE, State.PAIRING), 2, Lane.BACKOFF),
    ],
)
async def test_who_fails_again_waits_apart_from_who_has_fallen_once(
    world: World, ports: RunnerPorts, monkeypatch: pytest.MonkeyPatch, condition: Condition, failures: int, lane: Lane
) -> None:
    monkeypatch.setattr("service.domain.restart_policy.backoff", lambda *_: 0.0)
    world.condition = condition
    world.resume = Resume(wanted=True, jid=JID if condition.credentials is Credentials.CONFIRMED else "")
    running = asyncio.create_task(Runner("anna", NODE, ports).run())
    for number in range(1, failures + 1):
        await eventually(lambda number=number: len(world.processes) == number)  # type: ignore[misc]
        world.processes[-1].reports.put_nowait(seen.Ended(Cause.PROCESS_DIED))
    await eventually(lambda: len(world.orders) == failures + 1)
    assert world.orders[-1].lane is lane
    running.cancel()
    await asyncio.wait((running,), timeout=PATIENCE)
