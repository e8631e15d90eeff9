"""What kills of session processes cost of the receipts for sent texts: `python -m benchmarks.receipts [kills]` (24).

1. Callers send all the time by one node; the process of one session after the other is killed at a moment that is drawn
   by chance. How many texts stay SENT although the phone has confirmed them?
2. A phone reads 40 texts while the session is down. Its process is killed soon after its login, when all these receipts
   come in at once. How many texts stay DELIVERED although the phone has read them?

A receipt is acknowledged after its handler, but no buffer keeps it, so that each kill may cost the one that is in hand.
Exits with 1 if there are more. With `--first` the processes of 1 are those that paired: their library hands events over
by a channel of 100, and a kill costs what is in it.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import grpc

from dev import EmbeddedPostgres, EmbeddedValkey
from tests.caller import State
from tests.e2e.people import new_phone, pair
from tests.e2e.recovery import forget_failures, process_of
from tests.service_process import ServiceProcess
from tests.simulator.control import SimulatorControl
from tests.simulator.process import PRELOAD, SimulatorProcess

SESSIONS = 6
CALLERS = 3
"""To each session."""
SECONDS = (0.3, 1.3)
"""From one kill, once the session is back, to the next: at the least, at the most."""
SETTLED_S = 3.0
"""After which a message that is still in this state stays in it."""
BURST = 40
BURST_SECONDS = (0.0, 0.3)
"""From the login to the kill."""
POLL_S = 0.2
RETRY_S = 0.1


@dataclass
class Scene:
    """A node, its sessions (and their devices), and callers."""

    node: ServiceProcess
    simulator: SimulatorControl
    sql: "asyncpg.Connection[asyncpg.Record]"
    friend: str
    jids: dict[str, str]
    _number: int = 0

    async def kill_while_sending(self, kills: int) -> tuple[int, int]:
        """Return how many texts the phone has confirmed, and how many of them stay SENT."""
        calling = [asyncio.create_task(self._call(name)) for name in self.jids for _ in range(CALLERS)]
        for number in range(kills):
            await asyncio.sleep(random.uniform(*SECONDS))  # noqa: S311 - not a secret
            await self._kill(list(self.jids)[number % len(self.jids)])
        for task in calling:
            task.cancel()
        await asyncio.wait(calling)
        for task in calling:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        # An id that the phone has read is one that it has confirmed.
        confirmed = [message.id for message in await self.simulator.inbox(self.friend)]
        return len(confirmed), await self._stay("SENT", confirmed)

    async def kill_after_login(self, kills: int) -> tuple[int, int]:
        """Return how many texts the phone has read, and how many of them stay DELIVERED."""
        stay = 0
        for number in range(kills):
            session_id, jid = list(self.jids.items())[number % len(self.jids)]
            await forget_failures(self.node, session_id)
            sent = [await self._send(session_id) for _ in range(BURST)]
            await self._stay("SENT", sent)
            logins = (await self.simulator.device(jid)).logins
            os.kill(process_of(self.node, session_id).pid, signal.SIGKILL)
            for message_id in sent:
                await self.simulator.mark_read(self.friend, message_id)
            await self.simulator.wait_for_connected(jid, logins=logins + 1, timeout=60)
            await asyncio.sleep(random.uniform(*BURST_SECONDS))  # noqa: S311 - not a secret
            await self._kill(session_id)
            await self.simulator.wait_for_device(jid, lambda device: not device.queue, timeout=60)
            stay += await self._stay("DELIVERED", sent)
        return kills * BURST, stay

    async def _kill(self, session_id: str) -> None:
        epoch = (await self.node.status(session_id)).owner.epoch
        os.kill(process_of(self.node, session_id).pid, signal.SIGKILL)
        await self.node.wait_state(session_id, State.STATE_CONNECTED, timeout=60, after_epoch=epoch)

    async def _call(self, session_id: str) -> None:
        while True:
            await self._send(session_id)

    async def _send(self, session_id: str) -> str:
        """Send a text, again and again until it is taken; return its id."""
        self._number += 1
        number = self._number
        while True:
            try:
                request = f"request-{number}"
                message = await self.node.send(session_id, f"+{self.friend}", f"text {number}", request)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                return str(message.message_id)

    async def _stay(self, state: str, message_ids: list[str]) -> int:
        """Wait until none of these messages is in this state, or their number does not change; return it."""
        count, changed_at = -1, time.monotonic()
        while count and time.monotonic() < changed_at + SETTLED_S:
            query = "SELECT count(*) FROM zap.message WHERE state = $1 AND message_id = ANY($2)"
            if (now := await self.sql.fetchval(query, state, message_ids)) != count:
                count, changed_at = int(now), time.monotonic()
            await asyncio.sleep(POLL_S)
        return count


@asynccontextmanager
async def stage(*, is_first: bool) -> AsyncIterator[Scene]:
    """Start a node with paired sessions; `is_first`: their processes are those that paired."""
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
                "ZAP_WORKER_PRELOAD": PRELOAD,
                **simulator.environment(),
            }
            async with ServiceProcess(environment) as node:
                control = simulator.control
                jids = {}
                for name in (f"shop-{number}" for number in range(SESSIONS)):
                    jids[name] = await pair(node, control, name, await new_phone(control, name))
                    if not is_first:
                        await forget_failures(node, name)
                sql = await asyncpg.connect(postgres.url)
                yield Scene(node, control, sql, await new_phone(control, "Friend"), jids)
                await sql.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def main(kills: int, *, is_first: bool) -> int:
    """Write the figures; 1 if kills cost more than one receipt each."""
    async with stage(is_first=is_first) as scene:
        confirmed, sent = await scene.kill_while_sending(kills)
        sys.stdout.write(f"{kills} kills: the phone confirmed {confirmed} texts, {sent} of them stay SENT\n")
        sys.stdout.flush()
        read, delivered = await scene.kill_after_login(kills)
        sys.stdout.write(f"{kills} kills at a login: the phone read {read} texts, {delivered} of them stay DELIVERED\n")
    return int(max(sent, delivered) > kills)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.receipts", description="Receipts that kills cost.")
    parser.add_argument("kills", nargs="?", type=int, default=24)
    parser.add_argument("--first", action="store_true", help="begin with the processes that paired")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.kills, is_first=given.first)))
