"""The simulator, as the real neonize sees it. Each test has people of its own; the simulator is shared."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from simulator.control import SimulatorControl, wait_for
from simulator.process import SimulatorProcess
from tests.e2e.client_process import ClientProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count(491510000001)
Start = Callable[..., Awaitable[ClientProcess]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[SimulatorProcess]:
    async with SimulatorProcess() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def control(simulator: SimulatorProcess) -> AsyncIterator[SimulatorControl]:
    yield simulator.control
    await simulator.control.clear_faults()


@pytest_asyncio.fixture(loop_scope="module")
async def start(simulator: SimulatorProcess, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts clients; a second one with the same name has the same store."""
    clients = []

    async def start_client(name: str = "client", *, through_proxy: bool = False) -> ClientProcess:
        environment = simulator.environment(through_proxy=through_proxy)
        client = await ClientProcess.start(tmp_path / f"{name}.db", environment)
        clients.append(client)
        return client

    yield start_client
    await asyncio.gather(*(client.kill() for client in clients))


@pytest_asyncio.fixture(loop_scope="module")
async def alice(control: SimulatorControl) -> str:
    return (await control.create_phone(str(next(_numbers)), "Alice")).pn


@pytest_asyncio.fixture(loop_scope="module")
async def bob(control: SimulatorControl) -> str:
    return (await control.create_phone(str(next(_numbers)), "Bob")).pn


async def link(control: SimulatorControl, client: ClientProcess, pn: str) -> str:
    """Scan the client's code with this person's phone; the new device's address."""
    qr = await client.expect("qr")
    result = await control.scan(pn, qr["text"])
    assert result.outcome == "paired" and result.jid is not None
    await client.expect("connected")
    return result.jid


async def test_pairs_by_qr_and_exchanges_texts(control: SimulatorControl, start: Start, alice: str, bob: str) -> None:
    client = await start()
    jid = await link(control, client, alice)
    assert (await client.expect("status"))["text"] == "success"
    await client.expect("paired", user=alice)

    message_id = await control.write(bob, alice, "Hallo Alice 👋")
    assert (await client.expect("message", text="Hallo Alice 👋"))["id"] == message_id
    await control.wait_for_receipt(bob, message_id)

    sent_id = await client.send(bob, "Hallo Bob")
    arrived = await control.wait_for_inbox(bob, "Hallo Bob")
    assert (arrived.id, arrived.sender, arrived.times) == (sent_id, alice, 1)
    await client.expect("receipt", type=1, ids=[sent_id])
    assert (await control.wait_for_inbox(alice, "Hallo Bob")).to == bob, "the own phone sees what its device wrote"

    await control.mark_read(bob, sent_id)
    await client.expect("receipt", type=4, ids=[sent_id])

    device = await control.device(jid)
    assert (device.logins, device.overlaps, device.messages.sent, device.messages.retry_receipted) == (1, 0, 1, 0)
    await control.wait_for_device(jid, lambda it: it.queue == 0)
    assert device.one_time_prekeys > 40


async def test_pairs_through_the_proxy(control: SimulatorControl, start: Start, alice: str, bob: str) -> None:
    client = await start(through_proxy=True)
    await link(control, client, alice)
    await client.send(bob, "through the proxy")
    await control.wait_for_inbox(bob, "through the proxy")


async def test_pairs_by_code(control: SimulatorControl, start: Start, alice: str, bob: str) -> None:
    client = await start()
    await client.expect("qr")
    await client.command("pair_phone", pn=alice)
    code = (await client.expect("code"))["text"]
    assert (await control.type_code(alice, "AAAA-AAAA")).outcome == "wrong-code"
    await client.command("pair_phone", pn=alice)
    code = (await client.expect("code"))["text"]
    assert (await control.type_code(alice, code)).outcome == "paired"
    await client.expect("connected")
    await control.write(bob, alice, "by code")
    await client.expect("message", text="by code")


async def test_two_clients_write_to_each_other(control: SimulatorControl, start: Start, alice: str, bob: str) -> None:
    of_alice, of_bob = await start("alice"), await start("bob")
    await link(control, of_alice, alice)
    await link(control, of_bob, bob)
    for number in range(3):
        sent_id = await of_alice.send(bob, f"to Bob {number}")
        assert (await of_bob.expect("message", text=f"to Bob {number}"))["id"] == sent_id
        await of_bob.send(alice, f"to Alice {number}")
        await of_alice.expect("message", text=f"to Alice {number}")
    assert [message.times for message in await control.inbox(bob) if message.sender == alice] == [1, 1, 1]


async def test_a_device_linked_later_is_found(control: SimulatorControl, start: Start, alice: str, bob: str) -> None:
    """A client that does not know of a device is told so by the ack, and reaches it with its next message."""
    of_alice = await start("alice")
    await link(control, of_alice, alice)
    await of_alice.send(bob, "before")
    of_bob = await start("bob")
    await link(control, of_bob, bob)
    await of_alice.send(bob, "to whom it may concern")
    await of_alice.send(bob, "after")
    await of_bob.expect("message", text="after")


async def test_looks_up_who_is_on_whatsapp(control: SimulatorControl, start: Start, alice: str, bob: str) -> None:
    client = await start()
    await link(control, client, alice)
    await client.command("look_up", pn=bob)
    assert (await client.expect("looked-up"))["is_in"]
    await client.command("look_up", pn="4900000000")
    assert not (await client.expect("looked-up"))["is_in"]


async def test_app_state_brings_the_push_name(control: SimulatorControl, start: Start, alice: str, bob: str) -> None:
    """Without a push name a client cannot be available; once it is, its receipts say so."""
    client = await start()
    await link(control, client, alice)

    async def appeared() -> bool | None:
        await client.command("appear")
        return (await client.expect_one_of("appeared", "command-failed"))["event"] == "appeared" or None

    await wait_for(appeared, 10, "the push name")
    message_id = await control.write(bob, alice, "are you there?")
    sent = await control.wait_for_receipt(bob, message_id)
    assert "delivered" in [receipt.type for receipt in sent.receipts if ":" in receipt.device]


async def test_own_phone_writes(control: SimulatorControl, start: Start, alice: str, bob: str) -> None:
    client = await start()
    await link(control, client, alice)
    await control.write(alice, bob, "from my phone")
    assert (await client.expect("message", text="from my phone"))["is_from_me"]
    await control.wait_for_inbox(bob, "from my phone")


async def test_reconnects_after_a_drop(control: SimulatorControl, start: Start, alice: str, bob: str) -> None:
    client = await start()
    jid = await link(control, client, alice)
    assert await control.drop(jid) == 1
    await client.expect("disconnected")
    await client.expect("connected")
    device = await control.device(jid)
    assert (device.logins, device.overlaps, device.most_connections) == (2, 0, 1)
    assert device.intervals[0].disconnected_at is not None
    assert device.intervals[0].disconnected_at <= device.intervals[1].connected_at
    await control.write(bob, alice, "after the drop")
    await client.expect("message", text="after the drop")


async def test_restarts_without_a_scan_and_gets_what_waited(
    control: SimulatorControl, start: Start, alice: str, bob: str
) -> None:
    first = await start()
    jid = await link(control, first, alice)
    await first.kill()
    await control.wait_for_device(jid, lambda it: it.connections == 0)
    ids = [await control.write(bob, alice, f"while away {number}") for number in range(3)]
    assert (await control.device(jid)).queue >= 3

    second = await start()
    await second.expect("connected")
    assert [(await second.expect("message"))["id"] for _ in ids] == ids, "in order"
    assert not second.has_told("qr")
    device = await control.wait_for_device(jid, lambda it: it.queue == 0)
    assert device.overlaps == 0


async def test_a_message_lost_before_its_ack_arrives_once(
    control: SimulatorControl, start: Start, alice: str, bob: str
) -> None:
    client = await start()
    jid = await link(control, client, alice)
    await client.send(bob, "introduction")
    await control.drop_before_ack(jid)
    await client.send(bob, "once")
    arrived = await control.wait_for_inbox(bob, "once")
    assert arrived.times == 1
    assert (await control.device(jid)).messages.resent == 1


async def test_bad_hmac_fails_the_pairing(control: SimulatorControl, start: Start, alice: str) -> None:
    client = await start()
    qr = await client.expect("qr")
    failures = (await control.state()).pairing.failures
    result = await control.scan(alice, qr["text"], flaw="bad-hmac")
    assert (result.outcome, result.detail) == ("refused-by-client", "hmac-mismatch")
    await client.expect("status", text="error")
    assert (await control.state()).pairing.failures == failures + 1
    assert (await control.phone(alice)).devices == []


async def test_a_passkey_request_is_seen_in_the_login_status(
    control: SimulatorControl, start: Start, alice: str
) -> None:
    client = await start()
    qr = await client.expect("qr")
    result = await control.scan(alice, qr["text"], flaw="passkey")
    assert result.outcome == "passkey-requested"
    await client.expect("status", text="passkey-request")


async def test_a_refreshed_code_is_a_new_code_and_links(control: SimulatorControl, start: Start, alice: str) -> None:
    client = await start()
    first = (await client.expect("qr"))["text"]
    assert (await control.scan(alice, first, flaw="refresh")).outcome == "code-refreshed"
    second = (await client.expect("qr"))["text"]
    changed = [old != new for old, new in zip(first.split(","), second.split(","), strict=True)]
    assert changed[:4] == [False, False, False, True], "same ref and keys, another secret"
    assert (await control.scan(alice, second)).outcome == "paired"
    await client.expect("connected")


async def test_a_code_from_before_the_refresh_does_not_link(
    control: SimulatorControl, start: Start, alice: str
) -> None:
    client = await start()
    first = (await client.expect("qr"))["text"]
    await control.scan(alice, first, flaw="refresh")
    await client.expect("qr")
    assert (await control.scan(alice, first)).detail == "hmac-mismatch"


async def test_refused_at_first_login_is_never_paired(control: SimulatorControl, start: Start, alice: str) -> None:
    client = await start()
    qr = await client.expect("qr")
    await control.scan(alice, qr["text"], flaw="refused-login")
    await client.expect("logged-out", on_connect=True)
    assert (await control.phone(alice)).devices == []
    again = await start("client")
    await again.expect("qr")


@pytest.mark.parametrize("step", ["pair-success", "515", "login"])
async def test_a_client_killed_between_scan_and_login(
    control: SimulatorControl, start: Start, alice: str, step: str
) -> None:
    client = await start()
    qr = await client.expect("qr")
    await control.hold(step)
    scan = asyncio.create_task(control.scan(alice, qr["text"]))
    await control.wait_for_held(step)
    await client.kill()
    if step == "login":
        # The end of the connection comes through the simulator's proxy, and can come later than the release.
        await control.wait_for_none_held(step)
    await control.release(step)
    result = await scan
    again = await start()
    if step == "pair-success":
        assert result.outcome == "client-gone"
        await again.expect("qr")
    else:
        await again.expect("connected")
        assert not again.has_told("qr")
        assert result.jid is not None
        device = await control.device(result.jid)
        assert (device.logins, device.overlaps) == (1, 0), device


async def test_replaced_by_a_second_client(control: SimulatorControl, start: Start, alice: str, tmp_path: Path) -> None:
    client = await start("original")
    jid = await link(control, client, alice)
    await client.kill()  # a store that is being written to cannot be copied
    for file in tmp_path.glob("original.db*"):
        (tmp_path / file.name.replace("original", "copy")).write_bytes(file.read_bytes())
    client = await start("original")
    await client.expect("connected")
    copy = await start("copy")
    await copy.expect("connected")
    await client.expect("replaced")
    device = await control.wait_for_device(jid, lambda it: it.connections == 1)
    assert (device.overlaps, device.replaced, device.logins, device.most_connections) == (1, 1, 3, 2)


async def test_logged_out_while_connected(control: SimulatorControl, start: Start, alice: str) -> None:
    client = await start()
    jid = await link(control, client, alice)
    assert await control.log_out(jid) == 1
    await client.expect("logged-out", on_connect=False)
    assert (await control.device(jid)).removed == "logged out on the phone"


async def test_logged_out_while_away(control: SimulatorControl, start: Start, alice: str) -> None:
    client = await start()
    jid = await link(control, client, alice)
    await client.kill()
    await control.log_out(jid)
    again = await start()
    await again.expect("logged-out", on_connect=True)


async def test_logs_itself_out(control: SimulatorControl, start: Start, alice: str) -> None:
    client = await start()
    jid = await link(control, client, alice)
    await client.command("log_out")
    await client.expect("logged-out-by-itself")
    device = await control.wait_for_device(jid, lambda it: it.removed is not None)
    assert device.connections <= 1


async def test_failures_at_login(control: SimulatorControl, start: Start, alice: str) -> None:
    client = await start()
    jid = await link(control, client, alice)
    await control.fail(503, jid)
    await control.drop(jid)
    await client.expect("connected", timeout=10)
    assert (await control.device(jid)).failed_logins == 1
    await control.ban(jid, code=101, expire=60)
    banned = await client.expect("banned")
    assert (banned["code"], banned["expire"]) == (1, 60), banned


async def test_kicked_with_a_stream_error(control: SimulatorControl, start: Start, alice: str) -> None:
    client = await start()
    jid = await link(control, client, alice)
    assert await control.kick(jid, 500) == 1
    await client.expect("stream-error", code="500")
    await client.expect("connected")
    assert (await control.device(jid)).overlaps == 0


@pytest.mark.parametrize("how", ["abort", "http", "tls"])
@pytest.mark.parametrize("through_proxy", [False, True])
async def test_refused_connections(control: SimulatorControl, start: Start, how: str, through_proxy: bool) -> None:
    await control.refuse_connections(how)
    client = await start(through_proxy=through_proxy)
    assert "failed to dial" in (await client.expect("connect-raised"))["text"]


async def test_a_held_query_delays_its_caller_only(
    control: SimulatorControl, start: Start, alice: str, bob: str
) -> None:
    client = await start()
    jid = await link(control, client, alice)
    await control.hold_queries("usync", jid)
    await client.command("send", to=bob, text="held")
    await control.wait_for_held_queries()
    assert not client.has_told("sent")
    assert await control.release_queries() == 1
    await client.expect("sent")
    await control.wait_for_inbox(bob, "held")


async def test_a_drop_while_a_code_is_shown(control: SimulatorControl, start: Start) -> None:
    client = await start()
    await client.expect("qr")
    assert await control.drop("unpaired") == 1
    await client.expect("status", text="timeout")


async def test_a_device_that_lost_its_sessions_asks_again(
    control: SimulatorControl, start: Start, alice: str, bob: str, tmp_path: Path
) -> None:
    """The store goes back to how it was right after linking: Bob's phone has to begin anew."""
    client = await start("client")
    jid = await link(control, client, alice)
    await client.kill()
    early = {file.name: file.read_bytes() for file in tmp_path.glob("client.db*")}
    client = await start("client")
    await control.write(bob, alice, "introduction")
    await client.expect("message", text="introduction")
    await client.send(bob, "answer")
    await control.wait_for_inbox(bob, "answer")
    await client.kill()
    for file in tmp_path.glob("client.db*"):
        file.unlink()
    for name, data in early.items():
        (tmp_path / name).write_bytes(data)
    client = await start("client")
    await client.expect("connected")
    await control.write(bob, alice, "do you still know me?")
    await client.expect("message", text="do you still know me?")
    assert (await control.device(jid)).messages.retry_receipted >= 1


async def test_a_receipt_that_neonize_does_not_map(
    control: SimulatorControl, start: Start, alice: str, bob: str
) -> None:
    """Hazard: its event loop ends with an error while Go stays connected and acknowledges what nobody reads."""
    client = await start()
    jid = await link(control, client, alice)
    await control.send_receipt(jid, bob, "server-error")
    assert "required field" in (await client.expect("connect-raised"))["text"]
    message_id = await control.write(bob, alice, "nobody reads this")
    await control.wait_for_receipt(bob, message_id)
    assert not client.has_told("message")


async def test_a_burst_arrives_in_order(control: SimulatorControl, start: Start, alice: str, bob: str) -> None:
    client = await start()
    jid = await link(control, client, alice)
    ids = [await control.write(bob, alice, f"burst {number}") for number in range(100)]
    assert [(await client.expect("message"))["id"] for _ in ids] == ids
    device = await control.wait_for_device(jid, lambda it: it.queue == 0)
    assert device.messages.retry_receipted == 0


async def test_latency(control: SimulatorControl, start: Start, alice: str, bob: str) -> None:
    client = await start()
    await link(control, client, alice)
    await client.send(bob, "introduction")
    await control.set_latency(0.3)
    sent_at = time.monotonic()
    await client.send(bob, "late")
    assert time.monotonic() - sent_at >= 0.3
