"""`make demo`: the whole story in one terminal, with a simulated phone instead of yours.

Real service, real Postgres and Valkey, the real WhatsApp library; only WhatsApp itself is simulated.
"""

import asyncio
import contextlib
import sys
import tempfile
import time

import aiohttp
from rich.console import Console

from simulator.control import SimulatorControl
from tests.caller import State
from tests.live_events import LiveEvents
from tests.scenarios.servers import servers
from tests.service_process import ServiceProcess

SESSION = "shop"
OWNER, CUSTOMER = "491701234567", "491709876543"
SCAN_AFTER = 2.0
"""Seconds in which the spectator looks at the code before the simulated phone scans it."""

console = Console(highlight=False)


def tell(text: str) -> None:
    """A line of the story."""
    console.print(f"[bold cyan]▸[/] {text}")


async def play() -> None:
    """Play it, and check every step of it."""
    async with servers(durable=False) as there, LiveEvents(there.valkey.url) as live:
        whatsapp = there.simulator.control
        await whatsapp.create_phone(OWNER, "The shop's owner")
        await whatsapp.create_phone(CUSTOMER, "Carla Customer")
        with tempfile.TemporaryFile() as log:
            node = ServiceProcess(there.environment(), output=log)
            try:
                await _first_life(node, whatsapp, live)
                await _second_life(node, whatsapp, live)
            except BaseException:
                sys.stderr.write(node.log())
                raise
            finally:
                await node.stop()


async def _first_life(node: ServiceProcess, whatsapp: SimulatorControl, live: LiveEvents) -> None:
    tell("Starting the service, with an empty database.")
    await node.start()
    await node.wait_ready()
    tell(f"Create and Activate session [b]{SESSION}[/]; StreamQR gives its code:")
    await node.create(SESSION)
    async with contextlib.aclosing(node.qr_updates(SESSION)) as updates:
        async for update in updates:
            if update.HasField("outcome"):
                break
            if not update.HasField("code"):
                continue
            sys.stdout.write(f"{update.code.terminal_text}\n")
            sys.stdout.flush()
            tell("A (simulated) phone scans it.")
            await asyncio.sleep(SCAN_AFTER)
            await whatsapp.scan(OWNER, update.code.text)
    session = await node.wait_state(SESSION, State.STATE_CONNECTED)
    tell(
        f"[green]CONNECTED[/] as {session.account.phone}, credentials of {session.credentials.size} bytes in Postgres."
    )
    await _talk(node, whatsapp, live, "Do you have tulips?", "Yes, red ones.")


async def _second_life(node: ServiceProcess, whatsapp: SimulatorControl, live: LiveEvents) -> None:
    tell(f"[red]kill -9[/] of all {len(node.processes())} processes of the service.")
    killed = time.monotonic()
    await node.kill_all()
    await whatsapp.write(CUSTOMER, OWNER, "Are you still there?")
    tell("Carla writes while nobody is there. The service starts again, with nothing but the database.")
    await node.start()
    await node.wait_ready()
    await node.wait_state(SESSION, State.STATE_CONNECTED, timeout=30, after_epoch=1)
    away = time.monotonic() - killed
    tell(f"[green]CONNECTED[/] again, without a QR code, {away:.1f} s after the kill (the dead node's lease included).")
    missed = await live.wait_for(SESSION, "messageReceived", text="Are you still there?")
    tell(f"What she wrote meanwhile arrived: “{missed['messageReceived']['text']}”")
    await _talk(node, whatsapp, live, "Good. Two bunches, please.", "With pleasure.")
    device = (await whatsapp.devices())[0]
    tell(f"Seen by WhatsApp: {device.logins} logins of this device, {device.overlaps} overlaps.")


async def _talk(node: ServiceProcess, whatsapp: SimulatorControl, live: LiveEvents, question: str, answer: str) -> None:
    await whatsapp.write(CUSTOMER, OWNER, question)
    event = (await live.wait_for(SESSION, "messageReceived", text=question))["messageReceived"]
    tell(f"Published on Redis: {event['pushName']} wrote “{event['text']}”")
    sent = await node.send(SESSION, CUSTOMER, answer, request_id=answer.replace(" ", "-"))
    await whatsapp.wait_for_inbox(CUSTOMER, answer)
    tell(f"Send(“{answer}”): on Carla's phone as {sent.message_id}")


def main() -> int:
    """Play it; the exit code."""
    started = time.monotonic()
    try:
        asyncio.run(play())
    except KeyboardInterrupt:
        return 130
    except (TimeoutError, RuntimeError, AssertionError, aiohttp.ClientError) as error:
        console.print(f"[bold red]The story broke off:[/] {error}")
        return 1
    tell(f"The end, after {time.monotonic() - started:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
