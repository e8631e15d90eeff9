"""One node through everything that is logged: no secret in its output, and no line about a session without its id."""

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import grpc
import pytest

from simulator.control import SimulatorControl
from simulator.process import SimulatorProcess
from tests.caller import State
from tests.e2e.pairing_helpers import new_phone
from tests.e2e.sql import Sql
from tests.endurance.rounds import process_of
from tests.eventually import eventually
from tests.service_process import ServiceProcess
from tests.tcp_proxy import Line, TcpProxy
from zap.v1 import session_pb2

WINDOW = 12
"""Characters of a key that are enough to find it by, wherever a line was cut."""
TOKEN = "Marker-of-the-callers-token"
PROXY_USER, PROXY_PASSWORD = "Marker-user", "Marker%2Fof@the-proxy"
OWNER, FRIEND = "Marker Owner Öl", "Marker Friend"
WRITTEN, MISSED, ANSWER = "Marker: what was written", "Marker: what nobody could read", "Marker: what was answered"
#: Full of digits, and readable all the same.
SHOP, STALL, STRANDED = "shop-20261123-0000042", "4915140000000", "s-4915140000001-and-more"

STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z \[\w+ *\] ", re.MULTILINE)
"""How a record begins in the console's form; lines without it (stacks) belong to the record before."""
OF_THE_NODE = re.compile(
    r"The node (is ready|stops)|the gRPC server listens|Other nodes can call this one"
    r"|zygote \d+ is ready|Applied a migration|A task waits"
    r"|Lease renewal failed|Cannot look for (sessions|queued messages)|An orphaned lease could not"
    r"|\[redis\.|call +\[[\w.]+\] .*method=(grpc\.health|zap\.v1\.SessionService/List)"
)

OF_THE_NODE_ALONE = {
    "service.node.connections",
    "service.node.wiring",
    "service.node.lifecycle",
    "service.api.grpc.server",
    "service.api.grpc.nodes",
    "service.workers.zygote",
    "service.store.migrate",
}


def _with_token(details: Any) -> Any:
    return details._replace(metadata=[*(details.metadata or ()), ("authorization", f"Bearer {TOKEN}")])


class _Calls(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_token(client_call_details), request)


class _Streams(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_token(client_call_details), request)


class AuthenticatedProcess(ServiceProcess):
    """A node whose callers show a token."""

    @property
    def channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.address, interceptors=[_Calls(), _Streams()])
        return self._channel


class Story:
    """What happens to the sessions of one node, and the secrets that come up in it."""

    def __init__(self, node: ServiceProcess, simulator: SimulatorControl, proxy: str) -> None:
        self._node = node
        self._simulator = simulator
        self._proxy = proxy
        self.texts = [TOKEN, PROXY_PASSWORD, PROXY_USER, OWNER, FRIEND, WRITTEN, MISSED, ANSWER]
        self.keys: list[str] = []
        self.numbers: list[str] = []

    async def person(self, name: str) -> str:
        """A phone whose numbers are nobody's business."""
        phone = await new_phone(self._simulator, name)
        lid = (await self._simulator.phone(phone)).lid
        self.numbers += [phone, re.split("[:@]", lid)[0]]
        return phone

    async def create(self, session_id: str, proxy: str) -> None:
        """A session that is wanted, through a proxy with a password."""
        url = f"http://{PROXY_USER}:{quote(PROXY_PASSWORD, safe='')}@{proxy}"
        await self._node.sessions.Create(session_pb2.CreateRequest(session_id=session_id, name=OWNER, proxy_url=url))
        await self._node.sessions.Activate(session_pb2.ActivateRequest(session_id=session_id))

    async def pair(self, session_id: str, phone: str, *, typed: bool) -> str:
        """From nothing to CONNECTED, with both codes asked for; the device's address."""
        await self.create(session_id, self._proxy)
        code = await self._node.first_code(session_id)
        self.keys += code.partition("#")[2].removeprefix("2@").split(",")[:4]
        request = session_pb2.RequestPairingCodeRequest(session_id=session_id, phone=f"+{phone}")
        shown = (await self._node.sessions.RequestPairingCode(request)).code
        self.texts += [shown, shown.replace("-", "")]
        link = await (self._simulator.type_code(phone, shown) if typed else self._simulator.scan(phone, code))
        assert link.outcome == "paired" and link.jid
        await self._node.wait_state(session_id, State.STATE_CONNECTED)
        return link.jid

    async def talk(self, sql: Sql, owner: str, friend: str) -> None:
        """Messages both ways, and one that cannot be read any more."""
        await self._simulator.write(friend, owner, WRITTEN)
        await self._node.send(SHOP, friend, ANSWER, "request-1")
        await self._simulator.wait_for_inbox(friend, ANSWER)
        await sql.execute("DELETE FROM whatsmeow_sessions")
        await self._simulator.write(friend, owner, MISSED)

    async def wait_for_the_log(self, sql: Sql, owner: str, friend: str) -> None:
        """A message that cannot be appended for so long that the library logs its stanza, with the friend's name."""
        async with sql.transaction():
            await sql.execute("LOCK TABLE zap.event IN SHARE MODE")
            await self._simulator.write(friend, owner, WRITTEN)
            # whatsmeow logs what takes longer than 5 s, once it is done.
            await asyncio.sleep(5.5)
        await said(self._node, "Node handling took")

    async def ask_for_nonsense(self, friend: str) -> None:
        """Calls that are refused, with words that no log is to repeat."""
        spaced = f"+{friend[:2]} {friend[2:5]} {friend[5:8]} {friend[8:]}"
        asks = session_pb2.RequestPairingCodeRequest
        await refused(self._node.sessions.RequestPairingCode(asks(session_id=SHOP, phone=spaced)))
        await refused(self._node.sessions.RequestPairingCode(asks(session_id=SHOP, phone=f"{friend} {WRITTEN}")))
        await refused(self._node.send(SHOP, f"{WRITTEN} {friend}@nowhere", ANSWER, "request-2"))
        await refused(self._node.send(SHOP, friend, f"{ANSWER} or not", "request-1"))
        await refused(self._node.send(STRANDED, friend, ANSWER, "request-3"))
        await refused(self._node.status("unknown"))
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._node.send(SHOP, f"{friend}@unknown.server", ANSWER, "request-4")

    async def survive(self, session_id: str, harm: Callable[[], Awaitable[object]]) -> None:
        """Something that costs the session its process, or its connection."""
        epoch = (await self._node.status(session_id)).owner.epoch
        await harm()
        await self._node.wait_state(session_id, State.STATE_CONNECTED, timeout=40, after_epoch=epoch)

    async def signal(self, session_id: str, number: signal.Signals) -> None:
        """A signal to a session's process."""
        os.kill(process_of(self._node, session_id), number)


async def refused(call: Awaitable[object]) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await call


async def said(node: ServiceProcess, pattern: str) -> None:
    """Until the node's log has this."""
    await eventually(lambda: re.search(pattern, node.log()), timeout=20)


@contextlib.asynccontextmanager
async def cut(database: TcpProxy) -> AsyncIterator[None]:
    await database.set(Line.CUT)
    yield
    await database.set(Line.OPEN)


@pytest.fixture
async def story_and_log(
    node_environment: dict[str, str],
    simulator_process: SimulatorProcess,
    simulator: SimulatorControl,
    database_url: str,
    sql: Sql,
) -> tuple[Story, str]:
    """What happened, and all that the node printed."""
    async with TcpProxy(database_url) as database:
        settings = {
            **{name: value for name, value in node_environment.items() if name != "SIMULATOR_URL"},
            **simulator_process.environment(through_proxy=True),
            "DATABASE_URL": database.url,
            "ZAP_WHATSAPP_DATABASE_URL": database_url,
            "ZAP_AUTH_TOKEN": TOKEN,
            "ZAP_LOG_LEVEL": "debug",
            "ZAP_WORKER_PRELOAD": "tests.endurance.talkative:aim",
        }
        async with AuthenticatedProcess(settings) as node:
            story = Story(node, simulator, urlsplit(simulator_process.addresses.proxy).netloc)
            story.texts += filter(None, [urlsplit(database_url).password, urlsplit(settings["REDIS_URL"]).password])
            owner, other, friend = [await story.person(name) for name in (OWNER, OWNER, FRIEND)]
            await story.pair(SHOP, owner, typed=False)
            jid = await story.pair(STALL, other, typed=True)
            await story.create(STRANDED, "127.0.0.1:1")
            await story.wait_for_the_log(sql, owner, friend)
            await story.talk(sql, owner, friend)
            await story.ask_for_nonsense(friend)
            await said(node, f"rror decrypting message.*session_id={SHOP}")
            await story.signal(SHOP, signal.SIGSTOP)
            await story.survive(STALL, lambda: story.signal(STALL, signal.SIGSEGV))
            async with cut(database):
                await said(node, "written later|Lease renewal failed")
            await simulator.drop(jid)
            await said(node, "has stalled")
            await node.wait_state(SHOP, State.STATE_CONNECTED, timeout=30, after_epoch=1)
            await node.sessions.Logout(session_pb2.LogoutRequest(session_id=SHOP))
            await simulator.log_out(jid)
            await node.wait_state(STALL, State.STATE_LOGGED_OUT)
            os.kill(node.pid, signal.SIGUSR1)
            await said(node, "A task waits")
        return story, node.log()


def records(log: str) -> list[str]:
    """The records of a log, each with the lines that belong to it."""
    starts = [match.start() for match in STAMP.finditer(log)]
    return [log[start:end] for start, end in zip(starts, [*starts[1:], len(log)], strict=True)]


def disguises(text: str) -> Iterator[str]:
    """Forms in which a text may be written down: as it is, escaped, in hexadecimal digits, in base64 at any offset."""
    data = text.encode()
    yield from {text, quote(text), repr(text)[1:-1], ascii(text)[1:-1], data.hex(), data.hex().upper()}
    for offset in range(3):
        # What does not depend on the bytes before and behind it.
        encoded = base64.b64encode(b"\0" * offset + data).decode()
        yield encoded[(0, 2, 3)[offset] : len(encoded) - 4]


def windows(key: str) -> Iterator[str]:
    """Every piece of a base64 key, in each of its notations, that is long enough to know it by."""
    raw = base64.b64decode(key)
    for notation in (key, base64.urlsafe_b64encode(raw).decode(), raw.hex(), raw.hex().upper()):
        yield from (notation[start : start + WINDOW] for start in range(len(notation) - WINDOW))


async def test_in_production_every_line_is_json_and_names_its_session(database_url: str, redis_url: str) -> None:
    # No simulator there: the session gets no further than to its proxy, and nothing leaves this machine.
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "ZAP_ENVIRONMENT": "production"}
    async with ServiceProcess(settings) as node:
        proxy = f"socks5://{PROXY_USER}:{quote(PROXY_PASSWORD, safe='')}@127.0.0.1:1"
        created = await node.sessions.Create(session_pb2.CreateRequest(proxy_url=proxy))
        await refused(node.send(created.session_id, "nobody", ANSWER, "request-1"))
        await node.sessions.Activate(session_pb2.ActivateRequest(session_id=created.session_id))
        await said(node, "PROXY_REFUSED")
        await node.sessions.Delete(session_pb2.DeleteRequest(session_id=created.session_id))
    lines = [json.loads(line) for line in node.log().splitlines()]
    assert all({"timestamp", "level", "logger", "event"} <= line.keys() for line in lines)
    sessions = {line["session_id"] for line in lines if line["logger"] not in OF_THE_NODE_ALONE}
    assert sessions == {created.session_id, "prepare-store"}
    assert [line["code"] for line in lines if line["event"] == "call"] == ["OK", "INVALID_ARGUMENT", "OK", "OK"]
    assert not [form for text in (PROXY_USER, PROXY_PASSWORD, ANSWER) for form in disguises(text) if form in node.log()]


def test_no_secret_and_no_line_without_its_session(story_and_log: tuple[Story, str]) -> None:
    story, log = story_and_log
    assert len(story.keys) == 8
    found = [form for text in story.texts for form in disguises(text) if form in log]
    found += [piece for key in story.keys for piece in windows(key) if piece in log]
    # The last two digits are shown.
    found += [number for number in story.numbers if number[:-2] in log]
    assert not found
    nameless = [record for record in records(log) if "session_id=" not in record and not OF_THE_NODE.search(record)]
    assert not nameless
