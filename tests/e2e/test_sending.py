"""Sending when much is sent at once, when callers hang up, and when the session goes away meanwhile."""

import asyncio

import grpc
import pytest

from simulator.control import SimulatorControl
from tests.e2e.pairing_helpers import new_phone, pair
from tests.e2e.sql import Sql
from tests.service_process import ServiceProcess, error_info
from zap.v1 import message_pb2, session_pb2


async def test_two_hundred_texts_at_once_are_all_sent(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    friend = await new_phone(simulator, "Bob")
    async with ServiceProcess(node_environment) as node:
        await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        sends = [node.send("anna", f"+{friend}", f"text {n}", f"r{n}") for n in range(200)]
        reasons = {message.reason.code for message in await asyncio.gather(*sends)}
        assert reasons == {""}
        arrived = await simulator.inbox(friend)
        assert len({message.text for message in arrived}) == 200
        assert {message.times for message in arrived} == {1}


async def test_a_caller_who_hangs_up_leaves_no_message_open(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql
) -> None:
    friend = await new_phone(simulator, "Bob")
    async with ServiceProcess(node_environment) as node:
        await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        for number in range(60):
            request = message_pb2.SendRequest(
                session_id="anna",
                to=f"+{friend}",
                request_id=f"r{number}",
                text=message_pb2.Text(body=f"text {number}"),
            )
            call = node.messages.Send(request)
            await asyncio.sleep(number * 0.0002)
            call.cancel()
        # A cancelled call may not have come to its intent yet, and a message that is sent may not have arrived.
        async with asyncio.timeout(30):
            before = None
            while (now := await counted(sql, simulator, friend)) != before or now["open"] or now["sent"] != now["came"]:
                before = now
                await asyncio.sleep(0.5)
        assert "Traceback" not in node.log()
        arrived = await simulator.inbox(friend)
        assert len(arrived) == len({message.text for message in arrived})


async def counted(sql: Sql, simulator: SimulatorControl, friend: str) -> dict[str, int]:
    """How many messages are open, how many there are, and how many the friend's phone has."""
    still_open = await sql.fetchval("SELECT count(*) FROM zap.message WHERE state = 'ACCEPTED'")
    sent = await sql.fetchval("SELECT count(*) FROM zap.message")
    return {"open": still_open, "sent": sent, "came": len(await simulator.inbox(friend))}


@pytest.mark.parametrize("step", ["INSERT", "DELETE"], ids=["add", "sweep"])
async def test_a_message_that_the_retry_store_does_not_take_is_certainly_not_sent(
    node_environment: dict[str, str], simulator: SimulatorControl, sql: Sql, step: str
) -> None:
    friend = await new_phone(simulator, "Bob")
    async with ServiceProcess(node_environment) as node:
        jid = await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        await sql.execute(
            f"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'refused'; END $$;
            CREATE TRIGGER refuse BEFORE {step} ON whatsmeow_retry_buffer EXECUTE FUNCTION refuse();
            """
        )
        refused = await node.send("anna", f"+{friend}", "refused", "r1")
        assert (refused.state, refused.reason.code) == (message_pb2.Message.STATE_FAILED, "NOT_SENT")
        assert "retry store: pq: refused" in refused.reason.message
        assert (await simulator.device(jid)).messages.sent == 0
        await sql.execute("DROP TRIGGER refuse ON whatsmeow_retry_buffer")
        assert not (await node.send("anna", f"+{friend}", "taken", "r2")).HasField("reason")
        await simulator.wait_for_inbox(friend, "taken")
        assert [message.text for message in await simulator.inbox(friend)] == ["taken"]


async def test_a_session_deleted_while_it_sends_is_not_found(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    friend = await new_phone(simulator, "Bob")
    async with ServiceProcess(node_environment) as node:
        await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        await simulator.hold_queries("usync")
        sending = asyncio.ensure_future(node.send("anna", f"+{friend}", "a text", "r1"))
        await simulator.wait_for_held_queries()
        await node.sessions.Delete(session_pb2.DeleteRequest(session_id="anna", force=True))
        await asyncio.wait([sending])
        error = sending.exception()
        assert isinstance(error, grpc.aio.AioRpcError)
        assert (error.code(), error_info(error).reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
        assert "Traceback" not in node.log()
