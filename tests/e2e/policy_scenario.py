"""One session for each row of the table of causes, all on one node: what befalls it, and what is told of that.

Every session reaches the simulated WhatsApp by a proxy of its own, which can misbehave for it alone.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil

from simulator.certificates import CertificateAuthority
from simulator.control import SimulatorControl
from simulator.process import SimulatorProcess
from tests.caller import State
from tests.e2e import faults
from tests.e2e.downtime import process_of
from tests.e2e.pairing_helpers import new_phone
from tests.e2e.proxies import Manner, Proxy
from tests.eventually import eventually
from tests.live_events import LiveEvents
from tests.service_process import ServiceProcess
from zap.v1 import session_pb2

LEASE_TTL = 10.0
"""The default: half a hundred sessions on a busy machine must not miss their permits while something befalls them."""
KEEPALIVE = 3
"""Seconds between two keepalives, and for an answer."""
PATIENCE = 8.0
"""Seconds without a connection after which a process leaves; a minute without this."""
TOLD_WITHIN = 60.0


@dataclass(frozen=True)
class Outcome:
    """What an event said: a state, why, and what a human should do."""

    state: str
    code: str
    message: str
    user_action: str


@dataclass
class PolicyScenario:
    """A session, and everything that can be done to it."""

    name: str
    node: ServiceProcess
    simulator: SimulatorControl
    live: LiveEvents
    postgres: "asyncpg.Pool[asyncpg.Record]"
    proxy: Proxy
    phone: str = ""
    jid: str = ""
    """Once it is paired."""

    async def create(self) -> None:
        """It exists, and nobody wants it connected yet."""
        self.phone = await new_phone(self.simulator, self.name)
        at = urlsplit(self.proxy.url)
        # By this user name the simulated WhatsApp knows whom it speaks to before anybody is paired.
        proxy_url = at._replace(netloc=f"{self.name}@{at.netloc}").geturl()
        await self.node.sessions.Create(session_pb2.CreateRequest(session_id=self.name, proxy_url=proxy_url))

    async def activate(self) -> session_pb2.Session:
        """It is wanted."""
        return await self.node.sessions.Activate(session_pb2.ActivateRequest(session_id=self.name))

    async def restart(self) -> None:
        """Its process is replaced, as a caller asks for it."""
        await self.node.sessions.Restart(session_pb2.RestartRequest(session_id=self.name))

    async def scan(self, flaw: str = "none") -> None:
        """Somebody scans the code on show."""
        link = await self.simulator.scan(self.phone, await self.node.first_code(self.name), flaw)
        self.jid = link.jid or ""

    async def pair(self) -> None:
        """From nothing to CONNECTED."""
        await self.create()
        await self.activate()
        await self.scan()
        await self.connected()

    async def connected(self, timeout: float = 30.0) -> session_pb2.Session:
        """It is CONNECTED, without another code."""
        return await self.node.wait_state(self.name, State.STATE_CONNECTED, timeout=timeout)

    async def status(self) -> session_pb2.Session:
        """As it is now."""
        return await self.node.status(self.name)

    async def logins(self) -> int:
        """How often its device has tried to log in."""
        device = await self.simulator.device(self.jid)
        return device.logins + device.failed_logins

    # --- what befalls it

    def signal(self, number: signal.Signals) -> None:
        """Its process gets a signal."""
        os.kill(process_of(self.node, self.name).pid, number)

    async def fails(self, reason: int, *, code: int | None = None, expire: int | None = None, times: int = 1) -> None:
        """Its next logins fail, and there is one at once."""
        await self.simulator.fail(reason, self.jid, code=code, expire=expire, times=times)
        await self.simulator.drop(self.jid)

    async def comes_back_to(self, manner: Manner) -> None:
        """Its proxy misbehaves from now on, and there is another process that meets it."""
        await self.proxy.behave(manner)
        self.signal(signal.SIGKILL)

    async def loses_its_backends(self) -> None:
        """Postgres ends a connection of its process while a statement is under way."""
        ended = (
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name LIKE $1 AND wait_event_type = 'Lock'"
        )
        friend = await new_phone(self.simulator, "Friend")
        async with self.postgres.acquire() as holder, holder.transaction():
            # What the library asks for each message.
            await holder.execute("LOCK TABLE whatsmeow_event_buffer")
            await self.simulator.write(friend, self.phone, "hello")
            await eventually(lambda: self.postgres.fetchval(ended, f"zap/{self.name}/%"))

    async def loses_its_device(self) -> None:
        """Somebody has deleted its keys."""
        await self.postgres.execute("DELETE FROM whatsmeow_device WHERE jid = $1", self.jid)
        await self.restart()

    # --- what is told

    def log(self) -> str:
        """What the node has written about it, each record on a line."""
        records = re.split(r"^(?=\d{4}-\d\d-\d\dT)", self.node.log(), flags=re.MULTILINE)
        flat = (record.replace("\n", " ") for record in records)
        return "\n".join(record for record in flat if f"session_id={self.name} " in f"{record} ")

    async def told(self, state: str, code: str, times: int = 1) -> Outcome:
        """The event that says so, the first or a later one; past ones count."""
        payload = "stateChanged"
        until = time.monotonic() + TOLD_WITHIN
        while time.monotonic() < until:
            said = [_told(event[payload]) for event in self.live.of(self.name, payload)]
            found = [one for one in said if (one.state, one.code) == (state, code)]
            if len(found) >= times:
                return found[times - 1]
            await asyncio.sleep(0.05)
        raise AssertionError(f"{self.name} was not {state} because of {code}, but this happened:\n{self.log()}")

    async def forgotten(self) -> None:
        """Nobody owns it any more, and no process of it runs."""
        async with asyncio.timeout(TOLD_WITHIN):
            while (await self.status()).HasField("owner"):
                await asyncio.sleep(0.05)
        running = [
            process for process in self.node.session_processes() if f"zap-session {self.name} " in _title(process)
        ]
        assert not running


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _told(changed: dict[str, object]) -> Outcome:
    reason = changed.get("reason", {})
    assert isinstance(reason, dict)
    return Outcome(str(changed["to"]), reason.get("code", ""), reason.get("message", ""), reason.get("userAction", ""))


@asynccontextmanager
async def policy_scenarios(
    names: Iterable[str], database_url: str, redis_url: str, folder: Path
) -> AsyncIterator[dict[str, PolicyScenario]]:
    """A node, and a session of each name that does not exist yet."""
    authority = CertificateAuthority()
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(SimulatorProcess())
        through = simulator.environment(through_proxy=True)
        trusted = folder / "trusted.pem"
        trusted.write_bytes(Path(through["SSL_CERT_FILE"]).read_bytes() + authority.pem)
        live = await stack.enter_async_context(LiveEvents(redis_url))
        postgres = await stack.enter_async_context(asyncpg.create_pool(database_url, min_size=1, max_size=2))
        node = await stack.enter_async_context(
            ServiceProcess(
                {
                    "DATABASE_URL": database_url,
                    "REDIS_URL": redis_url,
                    "ZAP_LEASE_TTL": f"{LEASE_TTL:g}",
                    "ZAP_CONNECTS_PER_SECOND": "50",
                    "ZAP_WORKER_PRELOAD": faults.PRELOAD,
                    faults.PATIENCE: f"{PATIENCE:g}",
                    **{name: value for name, value in through.items() if name != "HTTPS_PROXY"},
                    "SSL_CERT_FILE": str(trusted),
                    "SIMULATOR_KEEPALIVE": f"{KEEPALIVE}",
                }
            )
        )
        sessions = {
            name: PolicyScenario(
                name,
                node,
                simulator.control,
                live,
                postgres,
                await stack.enter_async_context(Proxy(simulator.addresses.proxy, authority)),
            )
            for name in names
        }
        yield sessions
        assert "Traceback" not in node.log()
