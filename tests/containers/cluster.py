"""Three replicas by the compose file, the people who write to their sessions, and what is asked of both."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from simulator.control import SimulatorControl
from simulator.views import DeviceView
from tests.caller import Caller, State
from tests.containers.engine import CommandFailed, Compose, docker, inspect
from tests.event_log import Logged
from tests.traffic import Kind, People, Traffic, Written, gather_people
from zap.v1 import session_pb2

SERVICE = "zap-service"
WRITER = "4915120000000"
REPLICAS = 3
GRPC_PORT = "50051/tcp"
READY = 90.0
"""Seconds until what was started is healthy."""
RATE = 2.0
"""Messages a second to each session."""


@dataclass(frozen=True)
class Replica:
    """A container of the service that runs."""

    container: str
    name: str
    host: str
    """Its own name: the node's label."""
    address: str
    """For callers on this machine."""
    health: str


@dataclass(frozen=True)
class Person:
    """A session, its account's phone, its friend's, and the device that was linked."""

    session_id: str
    phone: str
    friend: str
    jid: str


class Cluster:
    """What was started, and how it is asked."""

    def __init__(self, compose: Compose, control: SimulatorControl, token: str) -> None:
        self.compose = compose
        self.control = control
        self.people: list[Person] = []
        self.written: list[Written] = []
        """All messages to the sessions, from the beginning."""
        self._writers: People | None = None
        self._token = token
        self._callers: dict[str, Caller] = {}

    async def replicas(self) -> Sequence[Replica]:
        """Those that run, by their names."""
        ids = await self.compose.containers(SERVICE)
        return sorted((_replica(one) for one in (await inspect(*ids) if ids else ())), key=lambda one: one.name)

    async def wait_healthy(self, count: int = REPLICAS) -> Sequence[Replica]:
        """Until so many are, by their own HEALTHCHECK."""
        deadline = time.monotonic() + READY
        while True:
            replicas = await self.replicas()
            if [one.health for one in replicas] == count * ["healthy"]:
                return replicas
            if time.monotonic() > deadline:
                raise TimeoutError(f"not {count} healthy replicas after {READY} s but {replicas}")
            await asyncio.sleep(0.2)

    def caller(self, replica: Replica) -> Caller:
        """Who calls a replica; the same one each time."""
        return self._callers.setdefault(replica.address, Caller(replica.address, self._token))

    async def hang_up(self) -> None:
        """Whoever was called may be somebody else soon."""
        for caller in self._callers.values():
            await caller.hang_up()
        self._callers.clear()

    async def pair(self, session_id: str, asked: Replica, shown_by: Replica) -> None:
        """From nothing to CONNECTED: created on one replica, its QR code read on another."""
        number = 4915120000001 + 2 * len(self.people)
        phone, friend = str(number), str(number + 1)
        await self.control.create_phone(phone, session_id)
        await self.control.create_phone(friend, f"{session_id}'s friend")
        await self.caller(asked).create(session_id)
        link = await self.control.scan(phone, await self.caller(shown_by).first_code(session_id))
        if link.outcome != "paired" or link.jid is None:
            raise AssertionError(f"the scan ended as {link}")
        await self.caller(asked).wait_state(session_id, State.STATE_CONNECTED)
        self.people.append(Person(session_id, phone, friend, link.jid))

    async def owner(self, person: Person) -> Replica:
        """The replica that has the session now."""
        replicas = await self.replicas()
        owner = (await self.caller(replicas[0]).status(person.session_id)).owner.node
        return next(one for one in replicas if one.host == owner)

    async def wait_shared(self, timeout: float) -> None:
        """Wait until each session has a replica of its own, so that none is moved for the balance any more."""
        deadline = time.monotonic() + timeout
        while len({(await self.owner(person)).name for person in self.people}) < len(self.people):
            if time.monotonic() > deadline:
                raise TimeoutError(f"one replica has two sessions after {timeout} s")
            await asyncio.sleep(0.5)

    async def devices(self) -> Mapping[str, DeviceView]:
        """What WhatsApp knows of each session."""
        return {one.session_id: await self.control.device(one.jid) for one in self.people}

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """Have people write to every session while the context lasts, others than those whom `greet` has write."""
        phones = {one.session_id: one.phone for one in self.people}
        if self._writers is None:
            await self.control.create_phone(WRITER, "Writer")
            self._writers = await gather_people(self.control, WRITER, list(phones.values()))
        traffic = Traffic(self.control, self._writers, phones, RATE)
        try:
            async with traffic:
                yield
        finally:
            self.written += traffic.written

    async def connected(self, person: Person, replica: Replica, *, later_than: float, timeout: float) -> float:
        """When WhatsApp let the session in, after this moment, once its status says so; Unix seconds."""
        deadline = time.monotonic() + timeout
        while True:
            device = await self.control.device(person.jid)
            session = await self._status(person, replica)
            last = device.intervals[-1]
            if device.connections and last.connected_at > later_than and session.state == State.STATE_CONNECTED:
                return last.connected_at
            if time.monotonic() > deadline:
                raise TimeoutError(f"{person.session_id} was not connected after {timeout} s but\n{session}\n{device}")
            await asyncio.sleep(0.1)

    async def _status(self, person: Person, replica: Replica) -> session_pb2.Session:
        try:
            return await self.caller(replica).status(person.session_id)
        except grpc.aio.AioRpcError:
            # It may be on its way up.
            return session_pb2.Session()

    async def greet(self, person: Person, replica: Replica, word: str) -> None:
        """A text to the session and one from it, through a replica that need not be its owner's."""
        at, readers = time.time(), (person.session_id,)
        message_id = await self.control.write(person.friend, person.phone, word)
        self.written.append(Written(message_id, word, Kind.TEXT, person.friend, person.phone, readers, at))
        await self.control.wait_for_receipt(person.friend, message_id, timeout=20)
        await self.caller(replica).send(person.session_id, person.friend, f"{word} back", message_id)
        await self.control.wait_for_inbox(person.friend, f"{word} back", timeout=20)

    async def logged(self) -> Mapping[str, Sequence[Logged]]:
        """The messages in each session's event log, in its order."""
        rows = await self.sql(
            "SELECT session_id, encode(payload, 'hex') FROM zap.event WHERE type = 'MESSAGE_RECEIVED' ORDER BY sequence"
        )
        found: defaultdict[str, list[Logged]] = defaultdict(list)
        for session_id, payload in rows:
            found[session_id].append(Logged.of(bytes.fromhex(payload)))
        return found

    async def sql(self, statement: str) -> list[list[str]]:
        """Rows, as psql prints them, from the compose file's own Postgres."""
        container = (await self.compose.containers("postgres"))[0]
        psql = ("psql", "-U", "zap", "-d", "zap", "--no-align", "--tuples-only", "--command", statement)
        said = await docker("exec", container, *psql)
        return [line.split("|") for line in said.splitlines()]

    async def database_answers(self, timeout: float) -> float:
        """When Postgres answered again, in Unix seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                await self.sql("SELECT 1")
            except CommandFailed:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                return time.time()


def _replica(known: Mapping[str, Any]) -> Replica:
    ports = known["NetworkSettings"]["Ports"].get(GRPC_PORT) or [{"HostIp": "", "HostPort": "0"}]
    return Replica(
        container=known["Id"],
        name=known["Name"].lstrip("/"),
        host=known["Config"]["Hostname"],
        address=f"{ports[0]['HostIp']}:{ports[0]['HostPort']}",
        health=known["State"]["Health"]["Status"],
    )
