"""Every row of the table of causes (service/domain/disconnect_policy.py), on the real client through a whole node.

All rows are played at once, each by a session of its own, since most of them consist of waiting. What a row must show
is written here once more, by hand: a table that is compared with itself is always right.
"""

import asyncio
import datetime
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from dev import EmbeddedValkey
from service.domain.disconnect_policy import POLICIES, Cause
from service.domain.reasons import reason
from tests.caller import State
from tests.e2e.policy_scenario import PolicyScenario, policy_scenarios
from tests.e2e.proxies import Manner
from zap.v1 import session_pb2

Outcome = session_pb2.PairingOutcome
Befalls = Callable[[PolicyScenario], Awaitable[None]]

QUIET = 2.0
"""Seconds in which nothing must happen to a session that is not tried again: several times the first waits."""


class Then(Enum):
    """How a paired session goes on."""

    COMES_BACK = "by itself, once nothing keeps it from it"
    IN_AN_HOUR = "tried again in an hour, or when a caller asks"
    WHEN_TOLD = "when WhatsApp said, or in a day"
    ACTIVATE = "when a caller activates it"
    PAIR = "when it is paired anew"


@dataclass(frozen=True)
class Row:
    """One thing that befalls a paired session."""

    name: str
    cause: Cause | None
    """None: no end of a process, but a reason all the same."""
    befalls: Befalls
    state: str
    code: str
    then: Then = Then.COMES_BACK


@dataclass(frozen=True)
class PairingRow:
    """One thing that befalls a pairing."""

    name: str
    cause: Cause
    befalls: Befalls
    outcome: "Outcome.ValueType"
    code: str


def signals(number: signal.Signals) -> Befalls:
    async def befalls(session: PolicyScenario) -> None:
        session.signal(number)

    return befalls


def fails(failure: int, code: int | None = None, expire: int | None = None, times: int = 1) -> Befalls:
    return lambda session: session.fails(failure, code=code, expire=expire, times=times)


def meets(manner: Manner) -> Befalls:
    return lambda session: session.comes_back_to(manner)


async def is_replaced(session: PolicyScenario) -> None:
    await session.simulator.replace(session.jid)


async def is_replaced_twice(session: PolicyScenario) -> None:
    await session.simulator.replace(session.jid)
    await session.told("STATE_RECONNECTING", "STREAM_REPLACED")
    await session.told("STATE_CONNECTED", "", times=2)
    await session.simulator.replace(session.jid)


async def hears_what_neonize_does_not_map(session: PolicyScenario) -> None:
    await session.simulator.send_receipt(session.jid, session.phone, "server-error")


async def is_unlinked(session: PolicyScenario) -> None:
    await session.simulator.log_out(session.jid)


async def is_unlinked_while_away(session: PolicyScenario) -> None:
    session.signal(signal.SIGSTOP)
    await session.simulator.drop(session.jid)
    await session.simulator.log_out(session.jid)
    session.signal(signal.SIGCONT)


async def is_dropped(session: PolicyScenario) -> None:
    await session.simulator.drop(session.jid)


def is_kicked(code: int) -> Befalls:
    async def befalls(session: PolicyScenario) -> None:
        await session.simulator.kick(session.jid, code)

    return befalls


async def has_its_stream_ended(session: PolicyScenario) -> None:
    await session.simulator.end_stream(session.jid)


async def gets_no_keepalive(session: PolicyScenario) -> None:
    await session.simulator.mute_keepalives(session.jid)


AWAY, AGAIN = "STATE_RECONNECTING", Then.COMES_BACK
ROWS = (
    Row("killed", Cause.PROCESS_DIED, signals(signal.SIGKILL), AWAY, "PROCESS_DIED"),
    Row("frozen", Cause.PROCESS_STALLED, signals(signal.SIGSTOP), AWAY, "PROCESS_STALLED"),
    Row("restarted", Cause.STOPPED, PolicyScenario.restart, AWAY, "PROCESS_REPLACED"),
    Row("backends-ended", Cause.DATABASE_LOST, PolicyScenario.loses_its_backends, AWAY, "DATABASE_LOST"),
    Row("receipt-unmapped", Cause.CLIENT_ERROR, hears_what_neonize_does_not_map, AWAY, "CLIENT_ERROR"),
    Row("dropped", None, is_dropped, AWAY, "CONNECTION_LOST"),
    Row("stream-error-500", None, is_kicked(500), AWAY, "CONNECTION_LOST"),
    Row("stream-error-503", None, is_kicked(503), AWAY, "CONNECTION_LOST"),
    Row("stream-ended", None, has_its_stream_ended, AWAY, "CONNECTION_LOST"),
    Row("no-keepalive", None, gets_no_keepalive, AWAY, "KEEPALIVE_TIMEOUT"),
    Row("no-keepalive-for-long", Cause.CONNECT_STALLED, gets_no_keepalive, AWAY, "CONNECT_STALLED"),
    Row("proxy-silent", Cause.CONNECT_STALLED, meets(Manner.SILENT), AWAY, "CONNECT_STALLED"),
    Row("upgrade-unanswered", Cause.CONNECT_STALLED, meets(Manner.MUTE), AWAY, "CONNECT_STALLED"),
    Row("hung-up", Cause.UNREACHABLE, meets(Manner.CUT), AWAY, "WHATSAPP_UNREACHABLE"),
    Row("proxy-absent", Cause.PROXY_REFUSED, meets(Manner.ABSENT), AWAY, "PROXY_REFUSED"),
    Row("proxy-password", Cause.PROXY_REFUSED, meets(Manner.PASSWORD), AWAY, "PROXY_REFUSED"),
    Row("proxy-forbids", Cause.PROXY_REFUSED, meets(Manner.FORBIDDEN), AWAY, "PROXY_REFUSED"),
    Row("tls-garbage", Cause.TLS_REFUSED, meets(Manner.GARBAGE), AWAY, "TLS_REFUSED"),
    Row("tls-untrusted", Cause.TLS_REFUSED, meets(Manner.UNTRUSTED), AWAY, "TLS_REFUSED"),
    Row("tls-expired", Cause.TLS_REFUSED, meets(Manner.EXPIRED), AWAY, "TLS_REFUSED"),
    Row("bad-gateway", Cause.WHATSAPP_ERROR, meets(Manner.BAD_GATEWAY), AWAY, "WHATSAPP_ERROR"),
    Row("failure-500", Cause.WHATSAPP_ERROR, fails(500, times=2), AWAY, "WHATSAPP_ERROR"),
    Row("failure-503", Cause.WHATSAPP_ERROR, fails(503, times=2), AWAY, "WHATSAPP_ERROR"),
    Row("failure-400", Cause.CONNECTION_REFUSED, fails(400), AWAY, "CONNECTION_REFUSED", Then.IN_AN_HOUR),
    Row("failure-413", Cause.CONNECTION_REFUSED, fails(413), AWAY, "CONNECTION_REFUSED", Then.IN_AN_HOUR),
    Row("failure-418", Cause.CONNECTION_REFUSED, fails(418), AWAY, "CONNECTION_REFUSED", Then.IN_AN_HOUR),
    Row("replaced", Cause.STREAM_REPLACED, is_replaced, AWAY, "STREAM_REPLACED"),
    Row("replaced-twice", Cause.STREAM_REPLACED, is_replaced_twice, "STATE_FAILED", "STREAM_REPLACED", Then.ACTIVATE),
    Row("failure-405", Cause.CLIENT_OUTDATED, fails(405), "STATE_FAILED", "CLIENT_OUTDATED", Then.ACTIVATE),
    Row("failure-409", Cause.CLIENT_OUTDATED, fails(409), "STATE_FAILED", "CLIENT_OUTDATED", Then.ACTIVATE),
    *(
        Row(name, Cause.TEMPORARILY_BANNED, befalls, "STATE_SUSPENDED", "TEMPORARILY_BANNED", then)
        for name, befalls, then in (
            ("ban-for-seconds", fails(402, 101, 4), Then.COMES_BACK),
            ("ban-for-an-hour", fails(402, 104, 3600), Then.WHEN_TOLD),
            ("ban-without-end", fails(402, 102), Then.WHEN_TOLD),
            ("ban-unmapped", fails(402, 199, 3600), Then.WHEN_TOLD),
            ("ban-without-code", fails(402), Then.WHEN_TOLD),
        )
    ),
    *(
        Row(name, cause, befalls, "STATE_LOGGED_OUT", cause.value, Then.PAIR)
        for name, cause, befalls in (
            ("unlinked", Cause.LOGGED_OUT_ON_PHONE, is_unlinked),
            ("unlinked-while-away", Cause.LOGGED_OUT_BY_WHATSAPP, is_unlinked_while_away),
            ("failure-401", Cause.LOGGED_OUT_BY_WHATSAPP, fails(401)),
            ("failure-403", Cause.ACCOUNT_LOCKED, fails(403)),
            ("failure-406", Cause.ACCOUNT_BANNED, fails(406)),
            ("keys-deleted", Cause.DEVICE_MISSING, PolicyScenario.loses_its_device),
        )
    ),
)


def scanned(flaw: str) -> Befalls:
    return lambda session: session.scan(flaw)


def refused(failure: int) -> Befalls:
    async def befalls(session: PolicyScenario) -> None:
        await session.node.first_code(session.name)
        # Each login: the process that loses its connection may be the first to be refused, on its way out.
        await session.simulator.fail(failure, session.name, times=None)
        await session.simulator.drop(session.name)

    return befalls


async def is_let_be(session: PolicyScenario) -> None:
    updates = [update async for update in session.node.qr_updates(session.name)]
    codes = [update.code for update in updates if update.HasField("code")]
    assert [code.position for code in codes] == [1, 2]
    assert codes[0].text != codes[1].text


async def is_dropped_and_then_scanned(session: PolicyScenario) -> None:
    first = await session.node.first_code(session.name)
    await session.simulator.drop(session.name)
    async with asyncio.timeout(20):
        while await session.node.first_code(session.name) == first:
            await asyncio.sleep(0.05)
    await session.scan()


PAIRINGS = (
    PairingRow("not-scanned", Cause.CODES_USED_UP, is_let_be, Outcome.PAIRING_OUTCOME_TIMED_OUT, "QR_NOT_SCANNED"),
    PairingRow(
        "interrupted", Cause.PAIRING_INTERRUPTED, is_dropped_and_then_scanned, Outcome.PAIRING_OUTCOME_PAIRED, ""
    ),
    *(
        PairingRow(name, cause, befalls, Outcome.PAIRING_OUTCOME_REJECTED, code)
        for name, cause, befalls, code in (
            ("scan-forged", Cause.SCAN_REJECTED, scanned("bad-hmac"), "SCAN_REJECTED"),
            ("login-refused", Cause.LOGGED_OUT_BY_WHATSAPP, scanned("refused-login"), "LOGGED_OUT_BY_WHATSAPP"),
            ("pairing-refused", Cause.PAIRING_REFUSED, refused(401), "PAIRING_REFUSED"),
            ("pairing-outdated", Cause.CLIENT_OUTDATED, refused(405), "CLIENT_OUTDATED"),
            ("pairing-failure-400", Cause.CONNECTION_REFUSED, refused(400), "CONNECTION_REFUSED"),
        )
    ),
    PairingRow(
        "passkey",
        Cause.PASSKEY_REQUIRED,
        scanned("passkey"),
        Outcome.PAIRING_OUTCOME_PASSKEY_REQUIRED,
        "PASSKEY_REQUIRED",
    ),
)


AT_ONCE = 8
"""Sessions that are paired at the same time: what is tried begins after it, and a machine may have more to do."""


def test_every_cause_has_a_row() -> None:
    assert {row.cause for row in ROWS} | {row.cause for row in PAIRINGS} >= set(Cause)
    for row in ROWS:
        assert row.cause is None or POLICIES[row.cause].reason == row.code


@pytest.fixture(scope="module")
async def played(
    module_database_url: str, valkey_server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, "asyncio.Task[None]"]]:
    """What becomes of each row."""
    names = [row.name for row in ROWS] + [row.name for row in PAIRINGS]
    folder: Path = tmp_path_factory.mktemp("trusted")
    async with policy_scenarios(names, module_database_url, valkey_server.url, folder) as sessions:
        places = asyncio.Semaphore(AT_ONCE)

        async def pair(session: PolicyScenario) -> None:
            async with places:
                await session.pair()

        await asyncio.gather(*(pair(sessions[row.name]) for row in ROWS))
        # The library shows each code of a short list for 20 s.
        await next(iter(sessions.values())).simulator.set_qr_refs(2)
        tasks = {row.name: asyncio.create_task(play(row, sessions[row.name])) for row in ROWS}
        tasks |= {row.name: asyncio.create_task(play_pairing(row, sessions[row.name])) for row in PAIRINGS}
        yield tasks
        await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_paired_session(played: dict[str, "asyncio.Task[None]"], row: Row) -> None:
    await played[row.name]


@pytest.mark.parametrize("row", PAIRINGS, ids=lambda row: row.name)
async def test_a_pairing(played: dict[str, "asyncio.Task[None]"], row: PairingRow) -> None:
    await played[row.name]


async def play(row: Row, session: PolicyScenario) -> None:
    await row.befalls(session)
    told = await session.told(row.state, row.code)
    assert (told.message, told.user_action) == (reason(row.code).message, reason(row.code).user_action)
    await session.proxy.behave(Manner.PASS)
    await _THEN[row.then](session, row)


async def play_pairing(row: PairingRow, session: PolicyScenario) -> None:
    await session.create()
    await session.activate()
    watching = asyncio.create_task(session.node.outcome(session.name, timeout=90))
    await row.befalls(session)
    update = await watching
    assert (update.outcome, update.reason.code) == (row.outcome, row.code)
    if row.outcome == Outcome.PAIRING_OUTCOME_PAIRED:
        await session.connected()
        return
    assert (update.reason.message, update.reason.user_action) == (
        reason(row.code).message,
        reason(row.code).user_action,
    )
    await session.forgotten()
    now = await session.status()
    assert (now.state, now.desired_state) == (State.STATE_UNPAIRED, session_pb2.Session.DESIRED_STATE_INACTIVE)
    assert now.reason.code == row.code


async def comes_back(session: PolicyScenario, row: Row) -> None:
    if row.befalls is gets_no_keepalive:
        await session.simulator.mute_keepalives(session.jid, muted=False)
    if row.cause is Cause.CONNECT_STALLED:
        # Where every thread was, which is all that anybody can know of it.
        assert re.search(r"left on stderr:.*Thread 0x", session.log())
    await session.told("STATE_CONNECTED", "", times=2)
    await session.connected()


async def in_an_hour(session: PolicyScenario, row: Row) -> None:
    await session.forgotten()
    await assert_next_attempt_in(session, 3600)
    await assert_left_alone(session)
    await session.restart()
    await session.connected()


async def when_told(session: PolicyScenario, row: Row) -> None:
    await session.forgotten()
    # 86,400: WhatsApp did not say.
    await assert_next_attempt_in(session, 3600 if row.name in ("ban-for-an-hour", "ban-unmapped") else 86_400)
    await assert_left_alone(session)
    # A ban is a ban, whatever a caller asks for.
    assert (await session.activate()).state == State.STATE_SUSPENDED


async def activate(session: PolicyScenario, row: Row) -> None:
    await session.forgotten()
    assert not (await session.status()).evidence.HasField("next_attempt_time")
    await assert_left_alone(session)
    await session.activate()
    await session.connected()


async def pair_anew(session: PolicyScenario, row: Row) -> None:
    await session.forgotten()
    now = await session.status()
    assert now.desired_state == session_pb2.Session.DESIRED_STATE_INACTIVE
    assert now.account.jid == session.jid
    assert not now.credentials.present
    assert (await session.activate()).state == State.STATE_PAIRING
    await session.scan()
    await session.connected()


_THEN = {
    Then.COMES_BACK: comes_back,
    Then.IN_AN_HOUR: in_an_hour,
    Then.WHEN_TOLD: when_told,
    Then.ACTIVATE: activate,
    Then.PAIR: pair_anew,
}


async def assert_next_attempt_in(session: PolicyScenario, seconds: float) -> None:
    planned = (await session.status()).evidence.next_attempt_time.ToDatetime(tzinfo=datetime.UTC)
    left = (planned - datetime.datetime.now(datetime.UTC)).total_seconds()
    assert seconds - 60 < left <= seconds


async def assert_left_alone(session: PolicyScenario) -> None:
    """No storm of logins."""
    before = await session.logins()
    await asyncio.sleep(QUIET)
    assert await session.logins() == before
