"""What every node does for the whole database, on real nodes: what is old goes, what matters is named and counted."""

import re
from pathlib import Path

import aiohttp
import asyncpg
import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from simulator.control import SimulatorControl
from tests.caller import State
from tests.consumer import Consumer
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.eventually import eventually
from tests.log_writer import LogWriter
from tests.rpc.statuses import error_info
from tests.service_process import ServiceProcess
from tests.tcp_proxy import Line, TcpProxy

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
RETENTION = {"ZAP_EVENT_RETENTION": "4s"}


async def is_empty(sql: Sql) -> bool:
    return not await sql.fetchval("SELECT count(*) FROM zap.event")


async def metrics_of(node: ServiceProcess) -> str:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{node.http_port}/metrics") as page:
        return await page.text()


@pytest.mark.timeout(180)
async def test_who_was_away_too_long_is_told_and_goes_on_with_what_there_is(
    node_environment: dict[str, str], database_url: str, sql: Sql
) -> None:
    environment = node_environment | RETENTION
    async with LogWriter(database_url) as writer, ServiceProcess(environment) as node, ServiceProcess(environment):
        there, away = Consumer(from_start=True), Consumer(from_start=True)
        async with there.watching(node.address) as watching:
            await writer.append("shop", 3)
            async with away.watching(node.address):
                await away.wait_for("shop", 3)
            await eventually(lambda: is_empty(sql))
            # Who has seen all that was deleted misses nothing; who has not is told.
            resumed = Consumer(resume_token=away.events[-1].resume_token)
            away.resume_at(away.events[0].resume_token)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await away.watch(node.address)
            assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE
            assert error_info(refused.value).reason == "RESUME_TOKEN_EXPIRED"
            away.resume_at(error_info(refused.value).metadata["resume_token"])
            async with away.watching(node.address), resumed.watching(node.address):
                await writer.append("shop")
                for each in (there, away, resumed):
                    await each.wait_for("shop", 4)
            assert not watching.done()
        assert there.sequences("shop") == [1, 2, 3, 4]


@pytest.mark.timeout(180)
async def test_after_an_outage_of_postgres_it_goes_on(
    node_environment: dict[str, str], database_url: str, sql: Sql
) -> None:
    async with LogWriter(database_url) as writer, TcpProxy(database_url) as proxy:
        environment = node_environment | RETENTION
        environment |= {"DATABASE_URL": proxy.url, "ZAP_WHATSAPP_DATABASE_URL": database_url}
        async with ServiceProcess(environment) as node:
            await proxy.set(Line.CUT)
            await writer.append("shop", 3)

            async def is_said() -> bool:
                return "old rows are deleted later" in node.log()

            await eventually(is_said)
            await proxy.set(Line.OPEN)
            await eventually(lambda: is_empty(sql))

            async def is_counted() -> bool:
                page = await metrics_of(node)
                return (
                    'zap_rows_deleted_total{table="event"} 3.0' in page and "zap_retention_failures_total 0" not in page
                )

            await eventually(is_counted)


@pytest.mark.timeout(180)
async def test_whoever_holds_watch_up_in_another_database_is_named(
    node_environment: dict[str, str], database_url: str
) -> None:
    url = database_url.rpartition("/")[0] + "/postgres"
    neighbour = await asyncpg.connect(url, server_settings={"application_name": "neighbour"})
    async with ServiceProcess(node_environment) as node:
        held = neighbour.transaction()
        await held.start()
        await neighbour.fetchval("SELECT pg_current_xact_id()")
        pid = neighbour.get_server_pid()
        named = f'application="neighbour",database="postgres",pid="{pid}",state="idle in transaction"'

        async def is_named() -> bool:
            return named in await metrics_of(node) and "blocks Watch" in node.log()

        await eventually(is_named)
        await held.rollback()

        async def is_over() -> bool:
            return named not in await metrics_of(node) and "Watch continues" in node.log()

        await eventually(is_over)
    await neighbour.close()


def first_alert(page: str) -> dict[tuple[str, str], float]:
    """What the first alert of docs/operations.md fires for: state and reason, and how many sessions."""
    documented = OPERATIONS.read_text().partition("**Worth an alert.**")[2]
    found = re.search(r"^max by \(state, reason\) \((\w+)\{(.*)\}\) > 0$", documented, re.MULTILINE)
    assert found is not None
    matchers = re.findall(r'(\w+)(=~|!=)"([^"]*)"', found[2])

    def fires(labels: dict[str, str]) -> bool:
        return all((re.fullmatch(value, labels[name]) is None) is (how == "!=") for name, how, value in matchers)

    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return {
        (sample.labels["state"], sample.labels["reason"]): sample.value
        for sample in samples
        if sample.name == found[1] and fires(sample.labels) and sample.value > 0
    }


@pytest.mark.timeout(180)
async def test_the_first_documented_alert_fires_for_a_banned_number(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    async with ServiceProcess(node_environment) as node:
        jid = await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))

        async def is_counted_as_connected() -> bool:
            return 'zap_sessions{reason="",state="CONNECTED"} 1.0' in await metrics_of(node)

        await eventually(is_counted_as_connected)
        assert first_alert(await metrics_of(node)) == {}
        await simulator.fail(406, jid)
        await simulator.drop(jid)
        await node.wait_state("anna", State.STATE_LOGGED_OUT)

        async def is_fired() -> bool:
            return first_alert(await metrics_of(node)) == {("LOGGED_OUT", "ACCOUNT_BANNED"): 1.0}

        await eventually(is_fired)
