"""The real neonize in session processes, against the simulated WhatsApp and a real Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest

from service.domain.disconnect_policy import Cause
from service.domain.observations import (
    CodeShown,
    Connected,
    DeviceSaved,
    Disconnected,
    Ended,
    InboundEvent,
    PushNameChanged,
)
from service.ports.processes import CallFailed, StartOrder
from service.workers.pool import Pool, PoolSettings, StoreNotPrepared
from simulator.process import PRELOAD, SimulatorProcess
from tests.contents import text_content
from tests.e2e import faults, late_scan
from tests.e2e.session_processes import Watched, pair, start
from zap.v1 import event_pb2

PHONE, FRIEND = "491700000001", "491700000002"


@pytest.fixture(scope="module")
async def simulator() -> AsyncIterator[SimulatorProcess]:
    async with SimulatorProcess() as running:
        yield running


@pytest.fixture
async def pool(simulator: SimulatorProcess, database_url: str) -> AsyncIterator[Pool]:
    pool = Pool(PoolSettings(database_url, preload=PRELOAD), {**os.environ, **simulator.environment()})
    await pool.open()
    await pool.prepare_store()
    yield pool
    await pool.close()
    await simulator.control.clear_faults()


async def test_a_scan_pairs_and_messages_go_both_ways(pool: Pool, simulator: SimulatorProcess) -> None:
    control = simulator.control
    await control.create_phone(FRIEND, "Friend")
    await control.create_phone(PHONE)
    watched = await start(pool)
    code, _ = await watched.expect(CodeShown)
    assert code.position == 1
    await control.scan(PHONE, code.text)
    saved, _ = await watched.expect(DeviceSaved)
    connected, _ = await watched.expect(Connected)
    assert (connected.jid, connected.lid) == (saved.jid, saved.lid)
    assert saved.jid.startswith(PHONE)
    assert connected.lid.endswith("@lid")

    await control.write(FRIEND, PHONE, "hello")
    message, observed = await watched.message()
    assert (message.text, message.push_name, message.from_me, message.is_group) == ("hello", "Friend", False, False)
    assert observed.number == 1
    watched.process.confirm(observed.number)

    sent = await watched.process.send(f"{FRIEND}@s.whatsapp.net", text_content("see https://example.com"), 10)
    arrived = await control.wait_for_inbox(FRIEND, "see https://example.com")
    assert arrived.id == sent.message_id
    receipt = await watched.receipt()
    assert (list(receipt.message_ids), receipt.kind) == ([sent.message_id], event_pb2.Receipt.KIND_DELIVERED)
    await watched.process.stop(5)
    assert await watched.ended() == Ended(Cause.STOPPED, "asked to stop")


async def test_a_session_that_was_killed_resumes_by_its_jid_and_misses_nothing(
    pool: Pool, simulator: SimulatorProcess
) -> None:
    await simulator.control.create_phone(FRIEND, "Friend")
    watched, jid = await pair(pool, simulator.control, "491700000010")
    os.kill(watched.process.pid, signal.SIGKILL)
    ended = await watched.ended()
    assert ended.cause is Cause.PROCESS_DIED
    assert ended.detail.startswith("killed by SIGKILL")

    await simulator.control.write(FRIEND, "491700000010", "while away")
    again = await start(pool, jid=jid, epoch=2)
    connected, _ = await again.expect(Connected)
    assert connected.jid == jid
    message, observed = await again.message()
    assert (message.text, observed.number) == ("while away", 1)
    assert not any(isinstance(heard.observation, CodeShown) for heard in again.heard)


async def test_a_message_carries_the_time_that_whatsapp_gave_it(pool: Pool, simulator: SimulatorProcess) -> None:
    await simulator.control.create_phone(FRIEND, "Friend")
    watched, _ = await pair(pool, simulator.control, "491700000011")
    before = time.time()
    await simulator.control.write(FRIEND, "491700000011", "now")
    _, observed = await watched.message()
    assert abs(observed.time.timestamp() - before) < 5


async def test_sessions_go_on_when_the_zygote_is_killed(pool: Pool, simulator: SimulatorProcess) -> None:
    await simulator.control.create_phone(FRIEND, "Friend")
    watched, jid = await pair(pool, simulator.control, "491700000030")
    assert pool._zygote.pid is not None
    os.kill(pool._zygote.pid, signal.SIGKILL)
    await watched.process.send(f"{FRIEND}@s.whatsapp.net", text_content("still here"), 10)
    await simulator.control.wait_for_inbox(FRIEND, "still here")
    os.kill(watched.process.pid, signal.SIGKILL)
    ended = await watched.ended()
    assert ended.cause is Cause.PROCESS_DIED
    assert "not known" in ended.detail
    again = await start(pool, jid=jid, epoch=2)
    await again.expect(Connected)


async def test_the_account_s_own_name_becomes_known(pool: Pool, simulator: SimulatorProcess) -> None:
    await simulator.control.create_phone("491700000032", "My Shop")
    watched = await start(pool)
    code, _ = await watched.expect(CodeShown)
    await simulator.control.scan("491700000032", code.text)
    connected, _ = await watched.expect(Connected)
    if not connected.push_name:
        changed, _ = await watched.expect(PushNameChanged)
        assert changed.push_name == "My Shop"


async def test_a_planned_stop_hands_over_what_was_received(pool: Pool, simulator: SimulatorProcess) -> None:
    await simulator.control.create_phone(FRIEND, "Friend")
    watched, jid = await pair(pool, simulator.control, "491700000012")
    texts = [f"message {index}" for index in range(30)]
    for text in texts:
        await simulator.control.write(FRIEND, "491700000012", text)
    await watched.message()
    await watched.process.stop(10)
    assert (await watched.ended()).cause is Cause.STOPPED
    again = await start(pool, jid=jid, epoch=2)
    await again.expect(Connected)
    heard = [*watched.messages, *again.messages]
    async with asyncio.timeout(10):
        while len({message.message_id for message in heard}) < 30:
            await again.message()
            heard = [*watched.messages, *again.messages]
    assert {message.text for message in heard} == set(texts)


async def test_a_scan_with_a_wrong_hmac_is_rejected(pool: Pool, simulator: SimulatorProcess) -> None:
    watched, code = await _show_code(pool, simulator, "491700000013")
    await simulator.control.scan("491700000013", code.text, flaw="bad-hmac")
    assert (await watched.ended()).cause is Cause.SCAN_REJECTED


async def test_a_request_for_a_passkey_is_told(pool: Pool, simulator: SimulatorProcess) -> None:
    watched, code = await _show_code(pool, simulator, "491700000014")
    await simulator.control.scan("491700000014", code.text, flaw="passkey")
    assert (await watched.ended()).cause is Cause.PASSKEY_REQUIRED


async def test_a_login_refused_right_after_the_scan_ends_with_the_reason(
    pool: Pool, simulator: SimulatorProcess
) -> None:
    watched, code = await _show_code(pool, simulator, "491700000015")
    await simulator.control.scan("491700000015", code.text, flaw="refused-login")
    assert (await watched.ended()).cause in {Cause.LOGGED_OUT_BY_WHATSAPP, Cause.LOGGED_OUT_ON_PHONE}


async def test_a_login_refused_before_the_library_has_told_of_the_scan_ends_with_the_reason(
    database_url: str, simulator: SimulatorProcess
) -> None:
    pool = Pool(PoolSettings(database_url, preload=faults.PRELOAD), {**os.environ, **simulator.environment()})
    try:
        await pool.prepare_store()
        watched, code = await _show_code(pool, simulator, "491700000041")
        faults.provoke(watched.process.pid, "slow-login-status")
        await simulator.control.scan("491700000041", code.text, flaw="refused-login")
        ended = await watched.ended()
        assert (ended.cause, ended.detail) == (Cause.PAIRING_REFUSED, "login failure 401")
    finally:
        await pool.close()


async def test_a_login_before_the_library_has_told_itself_of_the_scan_is_no_failure(
    simulator: SimulatorProcess, database_url: str
) -> None:
    """Its QR channel takes the login for an unexpected event then."""
    pool = Pool(PoolSettings(database_url, preload=late_scan.PRELOAD), {**os.environ, **simulator.environment()})
    try:
        await pool.open()
        await pool.prepare_store()
        watched, _ = await pair(pool, simulator.control, "491700000033")
        await asyncio.sleep(3 * late_scan.LATE_S)
        assert not watched.has_ended
        assert (await simulator.control.phone("491700000033")).devices
    finally:
        await pool.close()


async def test_a_connection_lost_while_a_code_is_on_show_is_an_interruption(database_url: str) -> None:
    async with SimulatorProcess() as simulator:
        pool = Pool(PoolSettings(database_url, preload=PRELOAD), {**os.environ, **simulator.environment()})
        try:
            await pool.prepare_store()
            watched, _ = await _show_code(pool, simulator, "491700000016")
            await simulator.stop()
            assert (await watched.ended()).cause is Cause.PAIRING_INTERRUPTED
        finally:
            await pool.close()


async def test_a_pairing_by_code_typed_on_the_phone(pool: Pool, simulator: SimulatorProcess) -> None:
    await simulator.control.create_phone("491700000017")
    watched = await start(pool)
    code = await watched.process.request_pairing_code("491700000017", 20)
    await simulator.control.type_code("491700000017", code)
    connected, _ = await watched.expect(Connected)
    assert connected.jid.startswith("491700000017")


async def test_a_device_unlinked_on_the_phone_is_logged_out(pool: Pool, simulator: SimulatorProcess) -> None:
    watched, _ = await pair(pool, simulator.control, "491700000018")
    await simulator.control.log_out("491700000018")
    assert (await watched.ended()).cause is Cause.LOGGED_OUT_ON_PHONE


async def test_logging_out_unlinks_the_device(pool: Pool, simulator: SimulatorProcess) -> None:
    watched, _ = await pair(pool, simulator.control, "491700000019")
    await watched.process.log_out(10)
    assert not (await simulator.control.phone("491700000019")).devices


async def test_a_second_connection_with_the_same_keys_replaces_the_first(
    pool: Pool, simulator: SimulatorProcess
) -> None:
    watched, _ = await pair(pool, simulator.control, "491700000020")
    await simulator.control.replace("491700000020")
    assert (await watched.ended()).cause is Cause.STREAM_REPLACED


async def test_a_temporary_ban_says_until_when(pool: Pool, simulator: SimulatorProcess) -> None:
    watched, _ = await pair(pool, simulator.control, "491700000021")
    await simulator.control.ban("491700000021", code=101, expire=3600)
    ended = await watched.ended()
    assert ended.cause is Cause.TEMPORARILY_BANNED
    assert ended.until is not None
    assert abs(ended.until.timestamp() - time.time() - 3600) < 60


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (401, Cause.LOGGED_OUT_BY_WHATSAPP),
        (403, Cause.ACCOUNT_LOCKED),
        (406, Cause.ACCOUNT_BANNED),
        (405, Cause.CLIENT_OUTDATED),
        (400, Cause.CONNECTION_REFUSED),
        (418, Cause.CONNECTION_REFUSED),  # one that neonize does not map
    ],
)
async def test_a_login_that_fails_ends_the_process_with_the_cause(
    pool: Pool, simulator: SimulatorProcess, reason: int, cause: Cause
) -> None:
    watched, jid = await pair(pool, simulator.control, f"4917000010{reason}"[-12:])
    await watched.process.stop(5)
    await simulator.control.fail(reason)
    again = await start(pool, jid=jid, epoch=2)
    assert (await again.ended()).cause is cause


async def test_a_lost_connection_is_told_and_restored_by_the_library(pool: Pool, simulator: SimulatorProcess) -> None:
    watched, _ = await pair(pool, simulator.control, "491700000022")
    await simulator.control.drop("491700000022")
    await watched.expect(Disconnected)
    await watched.expect(Connected)


@pytest.mark.parametrize(("how", "cause"), [("abort", Cause.UNREACHABLE), ("http", Cause.WHATSAPP_ERROR)])
async def test_an_address_that_turns_everybody_away(
    pool: Pool, simulator: SimulatorProcess, how: str, cause: Cause
) -> None:
    await simulator.control.refuse_connections(how)
    watched = await start(pool)
    assert (await watched.ended()).cause is cause


async def test_a_send_without_a_connection_certainly_failed(pool: Pool, simulator: SimulatorProcess) -> None:
    watched, _ = await _show_code(pool, simulator, "491700000023")
    with pytest.raises(CallFailed) as failure:
        await watched.process.send(f"{FRIEND}@s.whatsapp.net", text_content("too early"), 5)
    assert failure.value.certain
    with pytest.raises(CallFailed, match="not a JID") as failure:
        await watched.process.send("nobody", text_content("to no address"), 5)
    assert failure.value.certain


async def test_a_send_that_hangs_is_given_up_without_knowing(pool: Pool, simulator: SimulatorProcess) -> None:
    await simulator.control.create_phone(FRIEND)
    watched, _ = await pair(pool, simulator.control, "491700000024")
    await simulator.control.hold_queries("usync", times=None)
    with pytest.raises(CallFailed) as failure:
        await watched.process.send(f"{FRIEND}@s.whatsapp.net", text_content("slow"), 0.5)
    assert not failure.value.certain


async def test_what_waited_for_a_session_comes_behind_the_word_that_it_is_connected(
    pool: Pool, simulator: SimulatorProcess
) -> None:
    """The library says so late: when two queries are answered, on a busy machine behind hundreds of messages."""
    phone = "491700000026"
    await simulator.control.create_phone(FRIEND)
    watched, jid = await pair(pool, simulator.control, phone)
    await watched.process.stop(5)
    await watched.ended()
    await simulator.control.write(FRIEND, phone, "while it was away")
    await simulator.control.hold_queries("passive", jid, times=None)
    try:
        again = await start(pool, jid=jid, epoch=2)
        await again.message()
        kinds = [type(heard.observation) for heard in again.heard]
        assert kinds.index(Connected) < kinds.index(InboundEvent)
    finally:
        await simulator.control.clear_faults()
        await simulator.control.release_queries()
    # By now the library has said so too, and that is not told again.
    await asyncio.sleep(1.0)
    assert [type(heard.observation) for heard in again.heard].count(Connected) == 1


async def test_a_session_that_is_stopped_past_its_deadline_executes_nothing_more(
    pool: Pool, simulator: SimulatorProcess
) -> None:
    watched = await start(pool, permit=3.0)
    deadline = time.monotonic() + 3.0
    await watched.expect(CodeShown)
    os.kill(watched.process.pid, signal.SIGSTOP)
    await asyncio.sleep(deadline + 0.2 - time.monotonic())
    os.kill(watched.process.pid, signal.SIGCONT)
    ended = await watched.ended(timeout=5)
    assert ended.cause is Cause.PROCESS_DIED
    assert "SIGALRM" in ended.detail


async def test_permits_keep_a_session_alive(pool: Pool) -> None:
    watched = await start(pool, permit=1.5)
    first_deadline = time.monotonic() + 1.5
    while time.monotonic() < first_deadline + 0.5:
        watched.process.permit(time.monotonic() + 1.5)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(watched.process.process.wait_closed(), 0.3)
            pytest.fail(f"ended: {watched.heard[-1]}")
    await watched.process.kill()
    assert (await watched.ended()).cause is Cause.STOPPED


async def test_a_frozen_process_is_killed_as_stalled(pool: Pool, simulator: SimulatorProcess) -> None:
    watched, _ = await pair(pool, simulator.control, "491700000025")
    began = time.monotonic()
    os.kill(watched.process.pid, signal.SIGSTOP)
    assert (await watched.ended()).cause is Cause.PROCESS_STALLED
    assert time.monotonic() - began < 8


async def test_a_store_that_cannot_be_made_is_told(simulator: SimulatorProcess, database_url: str) -> None:
    pool = Pool(PoolSettings(database_url.replace("test_", "absent_")), os.environ)
    try:
        with pytest.raises(StoreNotPrepared, match="absent_"):
            await pool.prepare_store()
    finally:
        await pool.close()


async def _show_code(pool: Pool, simulator: SimulatorProcess, pn: str) -> tuple[Watched, CodeShown]:
    await simulator.control.create_phone(pn)
    watched = await start(pool)
    code, _ = await watched.expect(CodeShown)
    return watched, code


async def test_a_session_goes_through_its_proxy(simulator: SimulatorProcess, database_url: str) -> None:
    through = simulator.environment(through_proxy=True)
    proxy = through.pop("HTTPS_PROXY")
    pool = Pool(PoolSettings(database_url, proxy_url="http://127.0.0.1:9", preload=PRELOAD), {**os.environ, **through})
    try:
        await pool.prepare_store()
        until = time.monotonic() + 60
        proxied = Watched(await pool.start(StartOrder("one", 1, "", proxy, until)))
        await proxied.expect(CodeShown)
        # Without one of its own it takes the default, at which nobody listens.
        refused = Watched(await pool.start(StartOrder("two", 1, "", "", until)))
        assert (await refused.ended()).cause is Cause.PROXY_REFUSED
    finally:
        await pool.close()


async def test_a_fault_in_go_is_told_in_go_s_words(pool: Pool) -> None:
    # A device that is not in the store is a nil in neonize's Go code; the core never orders that.
    watched = await start(pool, jid="491799999999:1@s.whatsapp.net")
    ended = await watched.ended()
    assert ended.cause is Cause.PROCESS_DIED
    assert "nil pointer dereference" in ended.detail
