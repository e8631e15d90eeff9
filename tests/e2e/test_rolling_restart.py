"""All nodes are restarted, one after the other, under traffic: sessions are away for a moment, nothing is lost."""

import asyncio
import statistics
import time
from collections.abc import Callable

import pytest

from simulator.control import SimulatorControl
from tests.e2e.callers import Told, assert_arrived_once, send_all_the_time
from tests.e2e.cluster import cluster
from tests.e2e.sql import Sql

SESSIONS = 9
AWAY = 1.0
"""Seconds, at p95: the design's bound."""
PATIENCE = 4
"""How much slower a machine may be that runs other tests as well."""


@pytest.mark.timeout(240)
async def test_a_rolling_restart_is_a_moment_for_each_session(
    node_environment: dict[str, str],
    simulator: SimulatorControl,
    sql: Sql,
    record_property: Callable[[str, object], None],
) -> None:
    async with cluster({**node_environment, "ZAP_LEASE_TTL": "10", "ZAP_REBALANCE": "1"}, simulator, SESSIONS) as there:
        began = time.time()
        told = Told()
        async with there.traffic(5.0) as traffic:
            for node in there.nodes:
                others = [other for other in there.nodes if other is not node]
                asking = asyncio.create_task(send_all_the_time(there, others[0], told))
                assert await node.stop() == 0
                await there.all_connected(others[1], timeout=10)
                await node.start()
                await node.wait_ready()
                await asyncio.sleep(1.0)
                asking.cancel()
                await asyncio.wait((asking,))
                assert asking.cancelled(), asking.exception()
        gaps = await there.gaps(began)
        await there.assert_one_owner_at_a_time()
        await there.assert_log_is_whole(sql, traffic.written)
        assert len(gaps) >= SESSIONS, "each of them was moved at least once"
        p95 = statistics.quantiles(gaps, n=20)[-1]
        record_property("gaps", gaps)
        print(f"{len(gaps)} moves, away for {statistics.median(gaps):.2f} s, p95 {p95:.2f}, at most {max(gaps):.2f}")  # noqa: T201
        print(f"{len(told.sent)} sent, refused meanwhile: {dict(told.refused)}")  # noqa: T201
        assert p95 < AWAY * PATIENCE
        assert not told.wrong
        await assert_arrived_once(there, told)
