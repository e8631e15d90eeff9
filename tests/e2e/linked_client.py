"""One neonize client that is linked to a simulated person, for tests that make many calls with it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from simulator.control import SimulatorControl
from simulator.person_control import PersonControl
from simulator.process import SimulatorProcess
from tests.e2e.client_process import ClientProcess

_numbers = itertools.count(491530000001)


class LinkedClient:
    """A neonize client, the person that it belongs to, and the simulator around it."""

    def __init__(self, control: SimulatorControl, client: ClientProcess, pn: str, jid: str) -> None:
        self.control = control
        self.client = client
        self.pn = pn
        self.jid = jid

    @property
    def address(self) -> str:
        """The person's address by phone number."""
        return f"{self.pn}@s.whatsapp.net"

    def person(self, pn: str = "") -> PersonControl:
        """Return the means to let a person act from the phone; the client's own person by default."""
        return self.control.person(pn or self.pn)

    async def create(self, name: str = "Bob") -> str:
        """Return the phone number of a new person."""
        return (await self.control.create_phone(str(next(_numbers)), name)).pn

    async def lid(self, pn: str) -> str:
        """Return the user part of a person's hidden id."""
        return (await self.control.phone(pn)).lid.partition("@")[0]


@asynccontextmanager
async def linked_client(folder: Path) -> AsyncIterator[LinkedClient]:
    """Start a simulator and a client that is linked and connected."""
    async with SimulatorProcess() as simulator:
        pn = (await simulator.control.create_phone(str(next(_numbers)), "Alice")).pn
        client = await ClientProcess.start(folder / "client.db", simulator.environment())
        try:
            link = await simulator.control.scan(pn, (await client.expect("qr"))["text"])
            assert link.jid is not None, link.detail
            await client.expect("connected")
            yield LinkedClient(simulator.control, client, pn, link.jid)
        finally:
            await client.kill()
