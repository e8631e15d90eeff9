"""After many rounds a node holds what it held before: a dozen of each kind here, hundreds in `make endurance`."""

import asyncio
import itertools
from pathlib import Path

from simulator.control import SimulatorControl
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.endurance.census import IDLE_CONNECTIONS, Observer
from tests.endurance.rounds import Rounds
from tests.service_process import ServiceProcess

WARM_UP, ROUNDS = 3, 12


async def test_rounds_of_every_kind_leave_nothing(
    node_environment: dict[str, str], simulator: SimulatorControl, database_url: str, sql: Sql, tmp_path: Path
) -> None:
    settings = {**node_environment, "TMPDIR": str(tmp_path), "ZAP_CONNECTS_PER_SECOND": "100"}
    async with ServiceProcess(settings) as node:
        await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        await node.create("berta", activate=False)
        observer = Observer(node, database_url, sql, tmp_path)
        rounds = Rounds(node, simulator, await new_phone(simulator, "Berta"))
        ways = itertools.cycle(rounds.failures)

        async def switch_and_kill(count: int) -> None:
            await rounds.switch_on("anna")
            for _ in range(count):
                await rounds.kill("anna")
            await rounds.switch_off("anna")

        async def fail_to_pair(count: int) -> None:
            for _ in range(count):
                await rounds.fail_to_pair("berta", next(ways))

        await asyncio.gather(switch_and_kill(WARM_UP), fail_to_pair(len(rounds.failures)))
        before = await observer.settled()
        await asyncio.gather(switch_and_kill(ROUNDS), fail_to_pair(ROUNDS))
        left = await observer.as_before(before)
        assert not left
        assert max((await observer.take()).bounded.values()) <= IDLE_CONNECTIONS
