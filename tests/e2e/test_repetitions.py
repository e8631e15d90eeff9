"""What WhatsApp sends again is one event, whichever process it comes to; what merely looks like it is another one."""

import asyncio
import os
import signal

import aiohttp
import grpc
import pytest

from simulator.binary_xml import Attrs
from simulator.binary_xml import node as stanza
from simulator.control import SimulatorControl
from tests.caller import State
from tests.e2e.downtime import process_of
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.eventually import eventually
from tests.service_process import ServiceProcess
from zap.v1 import event_pb2

KILLS = 5
THEN = 1_700_000_000


async def texts(sql: Sql) -> list[str]:
    rows = await sql.fetch("SELECT payload FROM zap.event WHERE type = 'MESSAGE_RECEIVED' ORDER BY sequence")
    return [event_pb2.Event.FromString(row["payload"]).message_received.text for row in rows]


async def receipts(sql: Sql) -> list[tuple[str, str]]:
    """Of which message, and whose."""
    rows = await sql.fetch("SELECT payload FROM zap.event WHERE type = 'RECEIPT' ORDER BY sequence")
    told = [event_pb2.Event.FromString(row["payload"]).receipt for row in rows]
    return [(message_id, receipt.sender) for receipt in told for message_id in receipt.message_ids]


async def repetitions(node: ServiceProcess) -> int:
    """What the library has told again, and the log had already."""
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{node.http_port}/metrics") as page:
        told = [line for line in (await page.text()).splitlines() if line.startswith("zap_events_repeated_total ")]
    return int(float(told[0].partition(" ")[2]))


async def test_a_message_whose_receipt_was_lost_comes_again_and_is_one_event(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    phone, friend = await new_phone(simulator, "Anna"), await new_phone(simulator, "Friend")
    async with ServiceProcess(node_environment) as node:
        jid = await pair(node, simulator, "anna", phone)
        await drop_next_confirmation(simulator, jid)
        first = await simulator.write(friend, phone, "one")
        await simulator.wait_for_connected(jid, logins=2)
        await simulator.wait_for_receipt(friend, first)
        await simulator.write(friend, phone, "two")
        await eventually(lambda: has(sql, "two"))
        assert await texts(sql) == ["one", "two"]
        messages = (await simulator.device(jid)).messages
        assert messages.delivered == messages.queued + 1


async def drop_next_confirmation(simulator: SimulatorControl, jid: str) -> None:
    """Of what comes from now on: whatever came with the pairing is confirmed."""
    await simulator.wait_for_device(jid, lambda it: it.queue == 0 and it.messages.queued > 0)
    await simulator.drop_at_confirmation(jid)


async def has(sql: Sql, text: str) -> bool:
    return text in await texts(sql)


async def test_a_sender_who_writes_one_message_again_is_heard_once(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    """Encrypted anew, so that the library has no reason to doubt it."""
    phone, friend = await new_phone(simulator, "Anna"), await new_phone(simulator, "Friend")
    async with ServiceProcess(node_environment) as node:
        await pair(node, simulator, "anna", phone)
        first = await simulator.write(friend, phone, "one")
        await eventually(lambda: has(sql, "one"))
        for _ in range(3):
            await simulator.repeat(friend, first)
        await simulator.write(friend, phone, "two")
        await eventually(lambda: has(sql, "two"))
        # The library told of all of them.
        assert await repetitions(node) == 3
        # Another process has other numbers.
        os.kill(process_of(node, "anna").pid, signal.SIGKILL)
        await node.wait_state("anna", State.STATE_RECONNECTING)
        await simulator.repeat(friend, first)
        await simulator.write(friend, phone, "three")
        await eventually(lambda: has(sql, "three"))
        assert await texts(sql) == ["one", "two", "three"]
        assert await sequences_are_gapless(sql)


async def sequences_are_gapless(sql: Sql) -> bool:
    numbers = [row["sequence"] for row in await sql.fetch("SELECT sequence FROM zap.event ORDER BY sequence")]
    return numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("addressing", ["number", "number-alone"])
async def test_a_message_that_comes_by_lid_and_by_number_is_one_event(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql, addressing: str
) -> None:
    phone, friend = await new_phone(simulator, "Anna"), await new_phone(simulator, "Friend")
    async with ServiceProcess(node_environment) as node:
        await pair(node, simulator, "anna", phone)
        group = (await simulator.create_group(friend, "All", [phone])).jid
        for number, to in enumerate((phone, group)):
            await simulator.address_by(friend, "lid")
            first = await simulator.write(friend, to, f"{number}.one")
            await eventually(lambda number=number: has(sql, f"{number}.one"))  # type: ignore[misc]
            await simulator.address_by(friend, addressing)
            await simulator.repeat(friend, first)
            await simulator.write(friend, to, f"{number}.two")
            await eventually(lambda number=number: has(sql, f"{number}.two"))  # type: ignore[misc]
        assert await texts(sql) == ["0.one", "0.two", "1.one", "1.two"]
        assert await repetitions(node) == 2


async def test_a_receipt_that_comes_by_lid_and_by_number_is_one_event(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    """The number alone, too: the library has learnt the LID from a message, and is asked inside its callback."""
    phone, friend = await new_phone(simulator, "Anna"), await new_phone(simulator, "Friend")
    async with ServiceProcess(node_environment) as node:
        jid = await pair(node, simulator, "anna", phone)
        await simulator.write(friend, phone, "one")
        await eventually(lambda: has(sql, "one"))
        lid, number = (await simulator.phone(friend)).lid.replace("@", ":5@"), f"{friend}:5@s.whatsapp.net"
        ways: list[Attrs] = [{"from": lid, "sender_pn": number}, {"from": number, "sender_lid": lid}, {"from": number}]
        for way in ways:
            await simulator.deliver(jid, stanza("receipt", {**way, "id": "3EB0", "type": "read", "t": THEN}))
        await simulator.write(friend, phone, "two")
        await eventually(lambda: has(sql, "two"))
        assert await receipts(sql) == [("3EB0", lid)]
        assert await repetitions(node) == 2
        # Another process has read nothing of the map yet.
        os.kill(process_of(node, "anna").pid, signal.SIGKILL)
        await node.wait_state("anna", State.STATE_RECONNECTING)
        await simulator.deliver(jid, stanza("receipt", {**ways[2], "id": "3EB0", "type": "read", "t": THEN}))
        await simulator.write(friend, phone, "three")
        await eventually(lambda: has(sql, "three"))
        assert await receipts(sql) == [("3EB0", lid)]


async def test_a_receipt_that_comes_again_is_one_event(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    """Again and again, until the library has told of one twice: a connection can fall before it tells of it at all."""
    phone, friend = await new_phone(simulator, "Anna"), await new_phone(simulator, "Friend")
    sent: list[str] = []
    async with ServiceProcess(node_environment) as node:
        jid = await pair(node, simulator, "anna", phone)
        async with asyncio.timeout(120):
            while await repetitions(node) == 0:
                sent.append(await send_and_drop(node, simulator, jid, friend, str(len(sent))))
                await eventually(lambda: is_told(sql, len(sent)))
        told = await receipts(sql)
    assert sorted(message_id for message_id, _ in told) == sorted(sent)
    assert len(set(told)) == len(told)


async def send_and_drop(node: ServiceProcess, simulator: SimulatorControl, jid: str, friend: str, text: str) -> str:
    logins = (await simulator.device(jid)).logins
    await drop_next_confirmation(simulator, jid)
    message_id = await send(node, f"{friend}@s.whatsapp.net", text)
    await simulator.wait_for_connected(jid, logins=logins + 1)
    return message_id


async def send(node: ServiceProcess, to: str, text: str) -> str:
    """Once, whenever it is connected: after a fall it is shown as connected for a moment."""
    while True:
        try:
            return (await node.send("anna", to, text, request_id=text)).message_id
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(0.05)


async def is_told(sql: Sql, count: int) -> bool:
    return len(await receipts(sql)) >= count


async def test_the_text_behind_a_group_s_keys_is_an_event_though_it_has_their_id(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    phone, friend = await new_phone(simulator, "Anna"), await new_phone(simulator, "Friend")
    async with ServiceProcess(node_environment) as node:
        jid = await pair(node, simulator, "anna", phone)
        group = (await simulator.create_group(friend, "All", [phone])).jid
        await drop_next_confirmation(simulator, jid)
        await simulator.write(friend, group, "hello all")
        await eventually(lambda: has(sql, "hello all"))
        await simulator.wait_for_connected(jid, logins=2)
        await simulator.write(friend, phone, "and you")
        await eventually(lambda: has(sql, "and you"))
        assert await texts(sql) == ["hello all", "and you"]


@pytest.mark.parametrize("what", ["session process", "node"])
async def test_repetitions_beside_kills_are_one_event_each(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql, what: str
) -> None:
    phone, friend = await new_phone(simulator, "Anna"), await new_phone(simulator, "Friend")
    async with ServiceProcess(node_environment) as node:
        jid = await pair(node, simulator, "anna", phone)
        written: list[str] = []
        for number in range(KILLS):
            await simulator.drop_at_confirmation(jid, times=3)
            some = [f"{number}.{each}" for each in range(5)]
            written += [*some, f"end of {number}"]
            for message_id in [await simulator.write(friend, phone, text) for text in some]:
                await simulator.repeat(friend, message_id)
            epoch = (await node.status("anna")).owner.epoch
            if what == "node":
                await node.kill_node()
                await node.start()
                await node.wait_ready()
            else:
                os.kill(process_of(node, "anna").pid, signal.SIGKILL)
            await node.wait_state("anna", State.STATE_CONNECTED, after_epoch=epoch)
            await simulator.write(friend, phone, f"end of {number}")
            await eventually(lambda number=number: has(sql, f"end of {number}"))  # type: ignore[misc]
    assert await texts(sql) == written
    assert await sequences_are_gapless(sql)
