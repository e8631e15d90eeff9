"""Pairing as its viewers see it: every outcome, late and many viewers, and nothing secret left anywhere."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import grpc
import pytest

from simulator.certificates import CertificateAuthority
from simulator.control import SimulatorControl
from simulator.preload import URL_VARIABLE
from simulator.process import SimulatorProcess
from tests.caller import State
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.proxies import Manner, Proxy
from tests.e2e.sql import Sql
from tests.eventually import eventually
from tests.live_events import LiveEvents
from tests.service_process import ServiceProcess, error_info
from zap.v1 import session_pb2

INACTIVE = session_pb2.Session.DESIRED_STATE_INACTIVE


@pytest.fixture
async def node(node_environment: dict[str, str]) -> AsyncIterator[ServiceProcess]:
    async with ServiceProcess(node_environment) as running:
        yield running


async def assert_nothing_runs(node: ServiceProcess, sql: Sql, *session_ids: str) -> None:
    """Assert that no process is left, and no lease, code or device of these sessions."""
    async with asyncio.timeout(10):
        while await sql.fetchval(
            "SELECT EXISTS (SELECT FROM zap.lease WHERE session_id = ANY($1) AND incarnation IS NOT NULL)"
            " OR EXISTS (SELECT FROM zap.discarded_identity WHERE session_id = ANY($1))",
            session_ids,
        ):
            await asyncio.sleep(0.02)
    assert not node.session_processes()
    codes = await sql.fetch("SELECT code_text FROM zap.pairing WHERE session_id = ANY($1)", session_ids)
    assert {row["code_text"] for row in codes} <= {None}
    assert await sql.fetchval("SELECT count(*) FROM whatsmeow_device") == 0


async def test_every_viewer_sees_the_current_code_and_the_outcome(
    node: ServiceProcess, simulator: SimulatorControl
) -> None:
    phone = await new_phone(simulator, "Anna")
    await node.create("anna")
    viewers = [asyncio.create_task(node.outcome("anna")) for _ in range(3)]
    code = await node.first_code("anna")
    async for update in node.qr_updates("anna"):
        assert update.code.text == code
        assert update.code.png.startswith(b"\x89PNG")
        assert "█" in update.code.terminal_text
        assert update.code.position == 1
        assert update.code.HasField("expire_time")
        break
    await simulator.scan(phone, code)
    outcomes = [await viewer for viewer in viewers]
    assert [update.outcome for update in outcomes] == [session_pb2.PAIRING_OUTCOME_PAIRED] * 3
    session = await node.wait_state("anna", State.STATE_CONNECTED)
    assert session.account.phone == f"+{phone}"
    assert session.account.platform
    assert session.credentials.present
    assert session.credentials.HasField("create_time")
    assert session.evidence.HasField("last_connected_time")
    assert session.owner.epoch == 1


@pytest.mark.parametrize(
    ("flaw", "outcome", "reason"),
    [
        ("bad-hmac", session_pb2.PAIRING_OUTCOME_REJECTED, "SCAN_REJECTED"),
        ("passkey", session_pb2.PAIRING_OUTCOME_PASSKEY_REQUIRED, "PASSKEY_REQUIRED"),
        ("refused-login", session_pb2.PAIRING_OUTCOME_REJECTED, "LOGGED_OUT_BY_WHATSAPP"),
    ],
)
async def test_a_pairing_that_fails_ends_cleanly_and_activate_starts_afresh(
    node: ServiceProcess,
    simulator: SimulatorControl,
    sql: Sql,
    flaw: str,
    outcome: "session_pb2.PairingOutcome.ValueType",
    reason: str,
) -> None:
    phone = await new_phone(simulator, "Anna")
    await node.create("anna")
    viewer = asyncio.create_task(node.outcome("anna"))
    code = await node.first_code("anna")
    await simulator.scan(phone, code, flaw)
    update = await viewer
    assert update.outcome == outcome
    assert update.reason.code == reason
    assert update.reason.message
    assert update.reason.user_action
    session = await node.wait_state("anna", State.STATE_UNPAIRED)
    assert (session.desired_state, session.reason.code) == (INACTIVE, reason)
    assert not session.credentials.present
    await assert_nothing_runs(node, sql, "anna")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await node.first_code("anna")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error_info(refused.value).reason == "SESSION_NOT_ACTIVE"

    await node.sessions.Activate(session_pb2.ActivateRequest(session_id="anna"))
    fresh = await node.first_code("anna")
    assert fresh != code
    link = await simulator.scan(phone, fresh)
    assert link.outcome == "paired"
    await node.wait_state("anna", State.STATE_CONNECTED)


async def test_a_code_whose_secret_is_retired_is_replaced(node: ServiceProcess, simulator: SimulatorControl) -> None:
    phone = await new_phone(simulator, "Anna")
    await node.create("anna")
    texts: list[str] = []
    async with asyncio.timeout(30), contextlib.aclosing(node.qr_updates("anna")) as updates:
        async for update in updates:
            if update.HasField("code"):
                texts.append(update.code.text)
                assert update.code.position == 1
                link = await simulator.scan(phone, update.code.text, "refresh" if len(texts) == 1 else "none")
                assert link.outcome == ("code-refreshed" if len(texts) == 1 else "paired")
    assert update.outcome == session_pb2.PAIRING_OUTCOME_PAIRED
    assert len(set(texts)) == 2
    await node.wait_state("anna", State.STATE_CONNECTED)


async def test_a_connection_lost_while_codes_are_shown_brings_new_ones(
    node: ServiceProcess, simulator: SimulatorControl
) -> None:
    phone = await new_phone(simulator, "Anna")
    await node.create("anna")
    codes: list[str] = []
    async with asyncio.timeout(30):
        async for update in node.qr_updates("anna"):
            if update.HasField("delay"):
                # What was shown is void.
                assert update.reason.code == "CONNECTION_LOST"
                continue
            if not update.HasField("code"):
                break
            codes.append(update.code.text)
            if len(codes) == 1:
                assert await simulator.drop("unpaired") == 1
            else:
                await simulator.scan(phone, codes[-1])
    assert update.outcome == session_pb2.PAIRING_OUTCOME_PAIRED
    await node.wait_state("anna", State.STATE_CONNECTED)


async def test_who_waits_for_a_code_is_told_why_there_is_none(
    node_environment: dict[str, str], simulator_process: SimulatorProcess, simulator: SimulatorControl
) -> None:
    phone = await new_phone(simulator, "Anna")
    through = simulator_process.environment(through_proxy=True) | {URL_VARIABLE: "", "HTTPS_PROXY": ""}
    async with (
        Proxy(simulator_process.addresses.proxy, CertificateAuthority()) as proxy,
        ServiceProcess(node_environment | through) as node,
    ):
        await proxy.behave(Manner.ABSENT)
        await node.sessions.Create(session_pb2.CreateRequest(session_id="anna", proxy_url=proxy.url))
        await node.sessions.Activate(session_pb2.ActivateRequest(session_id="anna"))
        async with asyncio.timeout(30), contextlib.aclosing(node.qr_updates("anna")) as updates:
            update = await anext(updates)
            assert update.WhichOneof("update") == "delay"
            assert update.reason.code == "PROXY_REFUSED"

            async def status_says_so() -> bool:
                # Between two attempts, Status says that the next one waits for its start permit.
                return (await node.status("anna")).reason.code == "PROXY_REFUSED"

            await eventually(status_says_so)
            assert update.reason.user_action
            await proxy.behave(Manner.PASS)
            while update.HasField("delay"):
                update = await anext(updates)
            assert (await simulator.scan(phone, update.code.text)).outcome == "paired"
            assert (await anext(updates)).outcome == session_pb2.PAIRING_OUTCOME_PAIRED


async def test_deactivate_and_delete_cancel_a_pairing(node: ServiceProcess, sql: Sql) -> None:
    for session_id in ("anna", "berta"):
        await node.create(session_id)
        await node.first_code(session_id)
    viewers = [asyncio.create_task(node.outcome(session_id)) for session_id in ("anna", "berta")]
    await asyncio.sleep(0.2)
    await node.sessions.Deactivate(session_pb2.DeactivateRequest(session_id="anna"))
    await node.sessions.Delete(session_pb2.DeleteRequest(session_id="berta"))
    for viewer in viewers:
        assert (await viewer).outcome == session_pb2.PAIRING_OUTCOME_CANCELLED
    await assert_nothing_runs(node, sql, "anna", "berta")
    assert (await node.status("anna")).state == State.STATE_UNPAIRED


async def test_a_typed_code_pairs_too(node: ServiceProcess, simulator: SimulatorControl) -> None:
    phone = await new_phone(simulator, "Anna")
    await node.create("anna")
    await node.first_code("anna")
    answer = await node.sessions.RequestPairingCode(
        session_pb2.RequestPairingCodeRequest(session_id="anna", phone=f"+{phone}")
    )
    assert len(answer.code.replace("-", "")) == 8
    link = await simulator.type_code(phone, answer.code)
    assert link.outcome == "paired"
    await node.wait_state("anna", State.STATE_CONNECTED)


async def test_logout_unlinks_and_activate_pairs_anew(
    node: ServiceProcess, simulator: SimulatorControl, sql: Sql
) -> None:
    phone = await new_phone(simulator, "Anna")
    jid = await pair(node, simulator, "anna", phone)
    session = await node.sessions.Logout(session_pb2.LogoutRequest(session_id="anna"))
    assert (session.state, session.desired_state) == (State.STATE_LOGGED_OUT, INACTIVE)
    assert session.reason.code == "LOGGED_OUT_BY_CALLER"
    assert session.account.jid == jid
    assert not session.credentials.present
    assert (await simulator.device(jid)).removed
    await assert_nothing_runs(node, sql, "anna")
    await node.sessions.Activate(session_pb2.ActivateRequest(session_id="anna"))
    assert (await simulator.scan(phone, await node.first_code("anna"))).outcome == "paired"
    await node.wait_state("anna", State.STATE_CONNECTED)


async def test_unlinked_on_the_phone(node: ServiceProcess, simulator: SimulatorControl, sql: Sql) -> None:
    phone = await new_phone(simulator, "Anna")
    jid = await pair(node, simulator, "anna", phone)
    await simulator.log_out(jid)
    session = await node.wait_state("anna", State.STATE_LOGGED_OUT)
    assert session.reason.code == "LOGGED_OUT_ON_PHONE"
    assert session.desired_state == INACTIVE
    await assert_nothing_runs(node, sql, "anna")


async def test_no_secret_in_redis_log_or_events(
    node: ServiceProcess, simulator: SimulatorControl, live: LiveEvents, sql: Sql
) -> None:
    phone = await new_phone(simulator, "Anna")
    await node.create("anna")
    code = await node.first_code("anna")
    typed = await node.sessions.RequestPairingCode(
        session_pb2.RequestPairingCodeRequest(session_id="anna", phone=phone)
    )
    await live.wait_for("anna", "pairing", qrPosition=1)
    await simulator.scan(phone, code)
    await node.wait_state("anna", State.STATE_CONNECTED)
    await live.wait_for("anna", "pairing", outcome="PAIRING_OUTCOME_PAIRED")
    stored = await sql.fetch("SELECT payload FROM zap.event")
    everywhere = [*live.texts, node.log(), *(row["payload"].decode(errors="replace") for row in stored)]
    # Whoever has any of these can take the account over: the text itself, and each key in it.
    secrets = [code, *code.partition("#")[2].split(",")[1:4], typed.code, typed.code.replace("-", "")]
    for secret in secrets:
        assert len(secret) >= 8
        assert not [text for text in everywhere if secret in text]
    assert phone not in node.log(), "numbers are masked in logs"


async def test_a_cancelled_stream_leaves_nothing_behind(node: ServiceProcess, sql: Sql) -> None:
    await node.create("anna")
    await node.first_code("anna")
    # The first round opens what the node keeps: its connections to the database.
    descriptors = []
    for _ in range(3):
        viewers = [asyncio.create_task(node.outcome("anna")) for _ in range(50)]
        await wait_for_open_streams(node, 50)
        for viewer in viewers:
            viewer.cancel()
        await asyncio.wait(viewers)
        await wait_for_open_streams(node, 0)
        descriptors.append(node.processes()[0].num_fds())
    # It may open more of those later, up to ten; fifty streams that stayed would show.
    assert descriptors[-1] <= descriptors[0] + 10


async def wait_for_open_streams(node: ServiceProcess, count: int) -> None:
    """Until the node's metric says that so many StreamQR calls are open."""
    line = f'zap_rpc_open_streams{{method="zap.v1.SessionService/StreamQR"}} {count:.1f}'
    async with asyncio.timeout(10), aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"http://127.0.0.1:{node.http_port}/metrics") as answer:
                if line in (await answer.text()).splitlines():
                    return
            await asyncio.sleep(0.05)
