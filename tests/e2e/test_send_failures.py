"""Messages that WhatsApp does not take: each kind of refusal has a reason and an advice of its own."""

from service.domain.send_failures import SEND_FAILURES, SendFailure
from simulator.control import SimulatorControl
from tests.e2e.pairing_helpers import new_phone, pair
from tests.service_process import ServiceProcess
from zap.v1 import message_pb2

NUMBER_OF_NO_ONE = "+499999999999"
NO_GROUP = "120363000000000001@g.us"


async def check(
    node: ServiceProcess, to: str, request_id: str, failure: SendFailure, words: str, session_id: str = "anna"
) -> None:
    """Send a message that fails, and look at it once more."""
    failed = await node.send(session_id, to, f"never arrives: {request_id}", request_id)
    reason = SEND_FAILURES[failure]
    assert (failed.state, failed.reason.code, failed.reason.user_action) == (
        message_pb2.Message.STATE_FAILED,
        reason.code,
        reason.user_action,
    ), failed
    assert failed.reason.message.startswith(f"{reason.message[:-1]} (")
    assert words in failed.reason.message
    assert await node.messages.Get(message_pb2.GetRequest(session_id=session_id, request_id=request_id)) == failed


async def test_an_address_to_which_nothing_can_be_sent(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    stranger, friend = await new_phone(simulator, "Eve"), await new_phone(simulator, "Bob")
    theirs = (await simulator.create_group(stranger, "Theirs", [friend])).jid
    async with ServiceProcess(node_environment) as node:
        await pair(node, simulator, "anna", await new_phone(simulator, "Anna"))
        await check(node, NUMBER_OF_NO_ONE, "r1", SendFailure.RECIPIENT_NOT_ON_WHATSAPP, "no LID found")
        await check(node, NO_GROUP, "r2", SendFailure.GROUP_NOT_FOUND, "that group does not exist")
        await check(node, theirs, "r3", SendFailure.NOT_IN_GROUP, "you're not participating")


async def test_a_message_that_is_refused(node_environment: dict[str, str], simulator: SimulatorControl) -> None:
    friend = await new_phone(simulator, "Bob")
    async with ServiceProcess(node_environment) as node:
        anna = await new_phone(simulator, "Anna")
        jid = await pair(node, simulator, "anna", anna)
        group = (await simulator.create_group(friend, "Garden", [anna])).jid
        # The library learns who is in the group: later it does not ask before it sends.
        assert not (await node.send("anna", group, "to all", "r0")).HasField("reason")
        for to, code, failure in (
            (f"+{friend}", 463, SendFailure.ACCOUNT_RESTRICTED),
            (f"+{friend}", 475, SendFailure.ACCOUNT_RESTRICTED),
            (f"+{friend}", 403, SendFailure.REFUSED_BY_WHATSAPP),
            (f"+{friend}", 479, SendFailure.REFUSED_BY_WHATSAPP),
            (f"+{friend}", 500, SendFailure.REFUSED_BY_WHATSAPP),
            (group, 403, SendFailure.NOT_IN_GROUP),
            (group, 404, SendFailure.GROUP_NOT_FOUND),
            (group, 463, SendFailure.ACCOUNT_RESTRICTED),
        ):
            await simulator.refuse_messages(code, jid)
            await check(node, to, f"{failure.name}-{code}-{len(to)}", failure, f"server returned error {code}")
        assert not (await node.send("anna", f"+{friend}", "the last one", "last")).HasField("reason")
        await simulator.wait_for_inbox(friend, "the last one")
        assert [message.text for message in await simulator.inbox(friend)] == ["to all", "the last one"]


async def test_a_session_pauses_after_a_refusal_for_its_rate(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    friend = await new_phone(simulator, "Bob")
    async with ServiceProcess(node_environment) as node:
        for code in (420, 429):
            session_id = f"s{code}"
            jid = await pair(node, simulator, session_id, await new_phone(simulator, "Anna"))
            await simulator.refuse_messages(code, jid)
            words = f"server returned error {code}"
            await check(node, f"+{friend}", "refused", SendFailure.RATE_LIMITED, words, session_id)
            request = message_pb2.SendRequest(
                session_id=session_id, to=f"+{friend}", request_id="next", text=message_pb2.Text(body="later")
            )
            assert (await node.messages.Send(request, timeout=1)).is_queued


async def test_a_question_before_the_message_is_refused(
    node_environment: dict[str, str], simulator: SimulatorControl
) -> None:
    async with ServiceProcess(node_environment) as node:
        for namespace, code, text, failure in (
            ("usync", 429, "rate-overlimit", SendFailure.RATE_LIMITED),
            ("usync", 500, "internal-server-error", SendFailure.REFUSED_BY_WHATSAPP),
            ("w:g2", 429, "rate-overlimit", SendFailure.RATE_LIMITED),
            ("w:g2", 503, "service-unavailable", SendFailure.REFUSED_BY_WHATSAPP),
        ):
            to = NO_GROUP if namespace == "w:g2" else f"+{await new_phone(simulator, 'Bob')}"
            # A session of its own each: one that WhatsApp limits pauses.
            session_id = f"{namespace.replace(':', '-')}-{code}"
            jid = await pair(node, simulator, session_id, await new_phone(simulator, "Anna"))
            await simulator.fail_queries(namespace, code, text, target=jid)
            words = f"info query returned status {code}: {text}"
            await check(node, to, "refused", failure, words, session_id)
