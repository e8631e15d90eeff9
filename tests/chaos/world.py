"""A node on an estate, its paired sessions, and people who write to them."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from simulator.control import SimulatorControl
from simulator.process import PRELOAD, SimulatorProcess
from tests.chaos.estate import Estate
from tests.e2e.pairing_helpers import new_phone, pair
from tests.service_process import ServiceProcess
from tests.traffic import People, Traffic, gather_people


@dataclass(frozen=True)
class Paired:
    """A session, the phone it is linked to, and its device."""

    session_id: str
    phone: str
    device: str


class World:
    """`async with World(estate, simulator, redis_url, sessions=3) as world:` pairs everything and is ready."""

    def __init__(
        self,
        estate: Estate,
        simulator: SimulatorProcess,
        redis_url: str,
        *,
        sessions: int,
        output: IO[bytes] | None = None,
        **settings: str,
    ) -> None:
        """`output`: where the node's log goes. `settings`: further environment of the node."""
        self.estate = estate
        self.control: SimulatorControl = simulator.control
        self.sessions: list[Paired] = []
        self.people: People
        self._count = sessions
        self._stack = AsyncExitStack()
        environment = {
            "DATABASE_URL": estate.node_url,
            "ZAP_WHATSAPP_DATABASE_URL": estate.session_url,
            "REDIS_URL": redis_url,
            "ZAP_WORKER_PRELOAD": PRELOAD,
            **simulator.environment(),
            **settings,
        }
        self.node = ServiceProcess(environment, output=output)

    def traffic(self, rate: float) -> Traffic:
        """Have people write to the sessions, so many messages a second to all of them together."""
        phones = {session.session_id: session.phone for session in self.sessions}
        # The group's messages are half as many as those to one account.
        return Traffic(self.control, self.people, phones, rate / (len(phones) + 0.5))

    async def __aenter__(self) -> Self:
        try:
            await self._stack.enter_async_context(self.node)
            friend = await new_phone(self.control, "Friend")
            for number in range(self._count):
                session_id, phone = f"session-{number}", await new_phone(self.control, f"Owner {number}")
                device = await pair(self.node, self.control, session_id, phone)
                self.sessions.append(Paired(session_id, phone, device))
                # Then the friend's conversation with it is an established one.
                await self.node.send(session_id, f"+{friend}", "hello", f"hello-{number}")
            self.people = await gather_people(self.control, friend, [session.phone for session in self.sessions])
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
