"""Times to come: an event does not bear them, and so is not the newest for years."""

import asyncio
import time

from simulator.binary_xml import Attrs, node
from simulator.control import SimulatorControl
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.service_process import ServiceProcess
from zap.v1 import event_pb2

TEN_YEARS = 10 * 365 * 86_400


async def logged(sql: Sql, kind: str) -> tuple[event_pb2.Event, bool]:
    """The one event of this type, once it is in the log; whether its time is to come."""
    query = "SELECT payload, time > now() + interval '2 days' AS is_ahead FROM zap.event WHERE type = $1"
    async with asyncio.timeout(60):
        while not (rows := await sql.fetch(query, kind)):
            await asyncio.sleep(0.02)
    (row,) = rows
    return event_pb2.Event.FromString(row["payload"]), row["is_ahead"]


async def test_a_message_and_a_receipt_of_years_to_come_bear_no_such_time(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    phone, friend = await new_phone(simulator, "Anna"), await new_phone(simulator, "Friend")
    async with ServiceProcess(node_environment) as service:
        jid = await pair(service, simulator, "anna", phone)
        await simulator.set_clock_ahead(friend, TEN_YEARS)
        await simulator.write(friend, phone, "from the future")
        message, is_ahead = await logged(sql, "MESSAGE_RECEIVED")
        assert message.message_received.text == "from the future"
        assert not message.message_received.HasField("sent_time")
        assert not is_ahead
        about: Attrs = {
            "from": f"{friend}@s.whatsapp.net",
            "id": "3EB0",
            "type": "read",
            "t": int(time.time()) + TEN_YEARS,
        }
        await simulator.deliver(jid, node("receipt", about))
        receipt, is_ahead = await logged(sql, "RECEIPT")
        assert list(receipt.receipt.message_ids) == ["3EB0"]
        assert not is_ahead
