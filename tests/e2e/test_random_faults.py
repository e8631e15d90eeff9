"""A short run of what `make chaos` does for long: three nodes, struck by chance."""

import sys

import pytest

from simulator.control import SimulatorControl
from tests.chaos.nodes import Run
from tests.chaos.places import three_places
from tests.e2e.sql import Sql

SEED, STEPS, SESSIONS = 20261124, 6, 6


def tell(words: str) -> None:
    """Shown if it fails."""
    sys.stderr.write(f"{words}\n")


@pytest.mark.timeout(300)
async def test_whatever_strikes_nodes_by_chance_nothing_is_doubled_or_lost(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    async with three_places({**node_environment, "ZAP_REBALANCE": "1"}, simulator, SESSIONS) as (there, places):
        report = await Run(there, places, SEED, tell).steps(STEPS, sql)
    tell(str(report))
