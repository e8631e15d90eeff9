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
import signal
import sys
import time
from dataclasses import dataclass

import grpc

from benchmarks.stage import Deployment, deployment
from tests.caller import State
from tests.e2e.downtime import forget_failures, process_of
from tests.scenarios.background import beside

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
    """Send by a node, kill its sessions, and count what stays."""

    there: Deployment
    _number: int = 0

    async def kill_while_sending(self, kills: int) -> tuple[int, int]:
        """Return how many texts the phone has confirmed, and how many of them stay SENT."""
        async with beside(*(self._call(name) for name in self.there.jids for _ in range(CALLERS))):
            for number in range(kills):
                await asyncio.sleep(random.uniform(*SECONDS))  # noqa: S311 - not a secret
                await self._kill(list(self.there.jids)[number % len(self.there.jids)])
        # An id that the phone has read is one that it has confirmed.
        confirmed = [message.id for message in await self.there.simulator.inbox(self.there.friend)]
        return len(confirmed), await self._stay("SENT", confirmed)

    async def kill_after_login(self, kills: int) -> tuple[int, int]:
        """Return how many texts the phone has read, and how many of them stay DELIVERED."""
        stay = 0
        for number in range(kills):
            session_id, jid = list(self.there.jids.items())[number % len(self.there.jids)]
            await forget_failures(self.there.node, session_id)
            sent = [await self._send(session_id) for _ in range(BURST)]
            await self._stay("SENT", sent)
            logins = (await self.there.simulator.device(jid)).logins
            os.kill(process_of(self.there.node, session_id).pid, signal.SIGKILL)
            for message_id in sent:
                await self.there.simulator.mark_read(self.there.friend, message_id)
            await self.there.simulator.wait_for_connected(jid, logins=logins + 1, timeout=60)
            await asyncio.sleep(random.uniform(*BURST_SECONDS))  # noqa: S311 - not a secret
            await self._kill(session_id)
            await self.there.simulator.wait_for_device(jid, lambda device: not device.queue, timeout=60)
            stay += await self._stay("DELIVERED", sent)
        return kills * BURST, stay

    async def _kill(self, session_id: str) -> None:
        epoch = (await self.there.node.status(session_id)).owner.epoch
        os.kill(process_of(self.there.node, session_id).pid, signal.SIGKILL)
        await self.there.node.wait_state(session_id, State.STATE_CONNECTED, timeout=60, after_epoch=epoch)

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
                message = await self.there.node.send(session_id, f"+{self.there.friend}", f"text {number}", request)
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
            if (now := await self.there.sql.fetchval(query, state, message_ids)) != count:
                count, changed_at = int(now), time.monotonic()
            await asyncio.sleep(POLL_S)
        return count


async def main(kills: int, *, is_first: bool) -> int:
    """Write the figures; 1 if kills cost more than one receipt each."""
    async with deployment(SESSIONS, restored=not is_first) as there:
        scene = Scene(there)
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
