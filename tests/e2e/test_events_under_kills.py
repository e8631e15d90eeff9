"""The trial of the event log (`python -m tests.chaos events`), short and by one seed."""

from pathlib import Path

import pytest

from dev import EmbeddedPostgres, EmbeddedValkey
from simulator.process import SimulatorProcess
from tests.chaos.events.blows import Tempo
from tests.chaos.events.trial import Size, Trial
from tests.scenarios.servers import Servers

QUICK = Tempo(nodes=(0.5, 1.0), processes=(1.0, 3.0), redis=(0.5, 2.0), consumers=(0.5, 2.0), redis_away=2.0)
SEED = 1
"""By which one node is killed, and another one frozen."""


@pytest.mark.timeout(180)
async def test_whatever_is_killed_the_log_is_whole_and_each_consumer_has_all_of_it(
    postgres_server: EmbeddedPostgres,
    simulator_process: SimulatorProcess,
    server_folder: Path,
    tmp_path: Path,
) -> None:
    said: list[str] = []
    folder = server_folder / "valkey-that-is-killed"
    folder.mkdir()
    async with EmbeddedValkey(folder, die_with_starter=True) as valkey:
        servers = Servers(postgres_server, valkey, simulator_process)
        outcome = await Trial(servers, tmp_path, Size(300, 3, tempo=QUICK), SEED, said.append).run()
    assert not outcome.problems, "\n".join([*said, str(outcome)])
    for blow in ("kill -9 of node", "kill -9 of s", "kill -9 of Redis", "kill -9 of a consumer"):
        assert any(blow in words for words in said), said
