"""A node that is cut off: from the other nodes only, from Postgres only, from Redis only."""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2 as details

from simulator.control import SimulatorControl
from tests.chaos.places import TTL, Place, three_places
from tests.e2e.cluster import Cluster
from tests.e2e.pairing_helpers import new_phone
from tests.e2e.sql import Sql
from tests.rpc.statuses import detail
from tests.service_process import ServiceProcess, is_alive
from tests.tcp_proxy import Line
from zap.v1 import message_pb2, session_pb2

COME_BACK = TTL + 3.0
BUSY = 5.0
"""Seconds that a machine may need besides the bound, if it runs other tests as well."""
DEADLINE = 10.0
"""Seconds that callers give a call. An owner that does not answer is noticed after 3."""
SENT = {message_pb2.Message.STATE_SENT, message_pb2.Message.STATE_DELIVERED}


@dataclass(frozen=True)
class Scene:
    """One of three nodes, what it owns, and another one."""

    there: Cluster
    struck: Place
    owned: list[str]
    other: ServiceProcess
    epochs: dict[str, int]


async def scene(there: Cluster, places: list[Place]) -> Scene:
    node, owned = await there.an_owner()
    struck = next(place for place in places if place.node is node)
    other = next(place.node for place in places if place is not struck)
    return Scene(there, struck, owned, other, await there.epochs(other))


async def send(node: ServiceProcess, there: Cluster, session_id: str, text: str) -> message_pb2.Message:
    """By this node, within the deadline of a caller. The same text is the same message."""
    request = message_pb2.SendRequest(
        session_id=session_id,
        to=f"+{there.friend}",
        request_id=text.replace(" ", "-"),
        text=message_pb2.Text(body=text),
    )
    return await node.messages.Send(request, timeout=DEADLINE)


async def assert_everybody_shows_codes(there: Cluster, simulator: SimulatorControl, session_id: str) -> None:
    """Wherever it is owned, whoever is asked: the code, and how it ended."""
    phone = await new_phone(simulator, "Late")
    await there.nodes[0].create(session_id)
    codes = await asyncio.gather(*(node.first_code(session_id) for node in there.nodes))
    assert len(set(codes)) == 1
    viewers = [asyncio.create_task(node.outcome(session_id)) for node in there.nodes]
    await simulator.scan(phone, codes[0])
    outcomes = {last.outcome for last in await asyncio.gather(*viewers)}
    assert outcomes == {session_pb2.PAIRING_OUTCOME_PAIRED}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("line", [Line.CUT, Line.SILENT], ids=["cut", "silent"])
async def test_a_node_cut_off_from_the_others_keeps_its_sessions_and_leaves_them_when_it_stops(
    node_environment: dict[str, str], simulator: SimulatorControl, line: Line
) -> None:
    async with three_places(node_environment, simulator, 6) as (there, places):
        now = await scene(there, places)
        name = now.owned[0]
        # There is a connection to cut.
        assert (await send(now.other, there, name, "before")).state in SENT
        await now.struck.set_peers(line)
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await send(now.other, there, name, "meanwhile")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began < DEADLINE
        assert detail(refused.value, details.ErrorInfo).reason == "OWNER_UNREACHABLE"
        assert detail(refused.value, details.RetryInfo).retry_delay.ToTimedelta() > timedelta()
        # The others reach each other, it reaches what is its own, and what needs no owner is answered by everybody.
        assert (await send(now.struck.node, there, name, "by itself")).state in SENT
        theirs = next(one for one in there.sessions if one not in now.owned)
        for place in places:
            if place is not now.struck:
                assert (await send(place.node, there, theirs, "among others")).state in SENT
        await assert_everybody_shows_codes(there, simulator, "late")
        await asyncio.sleep(2 * TTL)
        for place in places:
            await there.all_connected(place.node, timeout=0)
        assert await there.epochs(now.other) == now.epochs, "nothing moves"

        assert await now.struck.node.stop() == 0
        await there.came_back(now.other, now.owned, now.epochs, COME_BACK + BUSY)
        again = await send(now.other, there, name, "meanwhile")
        assert again.state in SENT
        texts = [message.text for message in await simulator.inbox(there.friend)]
        assert texts.count("meanwhile") == 1
        await there.assert_one_owner_at_a_time()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("line", [Line.CUT, Line.SILENT], ids=["cut", "silent"])
async def test_a_node_cut_off_from_postgres_lets_go_in_time_and_is_followed(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql, line: Line
) -> None:
    async with three_places(node_environment, simulator, 6) as (there, places):
        now = await scene(there, places)
        async with there.traffic(5.0) as traffic:
            await traffic.reach(3)
            processes = now.struck.node.session_processes()
            assert len(processes) == len(now.owned)
            await now.struck.database.set(line)
            cut_at = time.time()
            await there.came_back(now.other, now.owned, now.epochs, COME_BACK + BUSY)
            assert not any(is_alive(process) for process in processes)
            for name in now.owned:
                # By WhatsApp's own clock: away before its permit could end, and only then connected elsewhere.
                before, after = (await simulator.device(there.jids[name])).intervals[-2:]
                assert before.disconnected_at is not None
                assert before.disconnected_at - cut_at < TTL
                assert before.disconnected_at <= after.connected_at
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await send(now.struck.node, there, now.owned[0], "nobody can write this down")
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            await now.struck.database.set(Line.OPEN)
            await traffic.reach(3)
        epochs = await there.epochs(now.other)
        assert {name for name in there.sessions if epochs[name] != now.epochs[name]} == set(now.owned)
        await there.assert_log_is_whole(sql, traffic.written)
        await there.assert_one_owner_at_a_time()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("line", [Line.CUT, Line.SILENT], ids=["cut", "silent"])
async def test_a_node_cut_off_from_redis_is_slower_not_wrong(
    node_environment: dict[str, str], simulator: SimulatorControl, line: Line
) -> None:
    async with three_places(node_environment, simulator, 6) as (there, places):
        now = await scene(there, places)
        await now.struck.redis.set(line)
        for place in places:
            assert (await send(place.node, there, now.owned[0], f"by {places.index(place)}")).state in SENT
        await assert_everybody_shows_codes(there, simulator, "late")
        await asyncio.sleep(2 * TTL)
        await there.all_connected(now.struck.node, timeout=0)
        assert await there.epochs(now.other) == now.epochs, "nothing moves"
        await now.struck.redis.set(Line.OPEN)
        await there.assert_one_owner_at_a_time()
