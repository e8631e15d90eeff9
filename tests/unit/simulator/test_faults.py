"""Faults strike whom they are aimed at, as often as they were told to."""

from __future__ import annotations

import asyncio

from simulator.faults import (
    ConnectionRefusal,
    Faults,
    HeldQuery,
    LoginFailure,
    MessageRefusal,
    QueryFailure,
    Target,
    UnreadableMessage,
)
from simulator.gates import Step
from simulator.listeners import Refusal
from simulator.signal_state import Damage
from tests.eventually import eventually

ALICE = frozenset({"4911", "4911:1@s.whatsapp.net", "77:1@lid"})
BOB = frozenset({"4922", "4922:1@s.whatsapp.net", "88:1@lid"})


def test_a_target_is_everybody_a_person_or_a_device() -> None:
    assert [Target(text).covers(ALICE) for text in ("", "4911", "4911:1@s.whatsapp.net", "77:1@lid")] == [True] * 4
    assert not Target("4911").covers(BOB)


def test_a_failure_strikes_so_often_and_no_more() -> None:
    faults = Faults()
    faults.login_failures.append(LoginFailure(Target("4911"), 2, 503))
    assert faults.login_failure(BOB) is None
    assert [faults.login_failure(ALICE) is not None for _ in range(3)] == [True, True, False]


def test_a_failure_without_a_number_strikes_until_cleared() -> None:
    faults = Faults()
    faults.login_failures.append(LoginFailure(Target(), None, 402, 101, 60))
    assert all(faults.login_failure(ALICE) for _ in range(10))
    faults.clear()
    assert faults.login_failure(ALICE) is None


def test_the_first_failure_that_applies_is_used_up_first() -> None:
    faults = Faults()
    faults.login_failures += [LoginFailure(Target(), 1, 503), LoginFailure(Target(), 1, 405)]
    failures = [faults.login_failure(ALICE) for _ in range(2)]
    assert [failure.reason for failure in failures if failure] == [503, 405]


def test_connections_are_refused_whoever_comes() -> None:
    faults = Faults()
    faults.refusals.append(ConnectionRefusal(Target(), 1, Refusal.TLS))
    assert [faults.next_refusal(), faults.next_refusal()] == [Refusal.TLS, None]


def test_held_queries_are_answered_when_released() -> None:
    faults, answered = Faults(), []
    faults.held_queries.append(HeldQuery(Target("4911"), None, "usync"))
    assert not faults.hold_query(ALICE, "w:p", lambda: answered.append("other namespace"))
    assert not faults.hold_query(BOB, "usync", lambda: answered.append("other person"))
    assert faults.hold_query(ALICE, "usync", lambda: answered.append("held"))
    assert (faults.held_query_count, answered) == (1, [])
    faults.clear()
    assert answered == ["held"]
    assert not faults.hold_query(ALICE, "usync", lambda: None)


def test_messages_and_queries_are_refused_to_whom_it_is_meant_for() -> None:
    faults = Faults()
    faults.message_refusals.append(MessageRefusal(Target("4911"), 1, 463))
    faults.query_failures.append(QueryFailure(Target("4911"), None, "usync", 429, "rate-overlimit"))
    assert faults.message_refusal(BOB) is None
    assert [getattr(faults.message_refusal(ALICE), "code", None) for _ in range(2)] == [463, None]
    assert faults.query_failure(ALICE, "w:g2") is None
    assert faults.query_failure(BOB, "usync") is None
    assert [getattr(faults.query_failure(ALICE, "usync"), "code", None) for _ in range(2)] == [429, 429]
    faults.clear()
    assert faults.query_failure(ALICE, "usync") is None


def test_a_phone_cannot_read_so_many_messages_of_a_sender() -> None:
    faults = Faults()
    faults.unreadable_messages.append(UnreadableMessage(Target("4933"), 2, Target("4911"), Damage.DAMAGED))
    assert faults.damage("4933", BOB) is None
    assert faults.damage("4944", ALICE) is None
    assert [faults.damage("4933", ALICE) for _ in range(3)] == [Damage.DAMAGED, Damage.DAMAGED, None]


def test_keepalives_are_muted_until_cleared() -> None:
    faults = Faults()
    faults.muted_keepalives.append(Target("4911"))
    assert (faults.is_keepalive_muted(ALICE), faults.is_keepalive_muted(BOB)) == (True, False)
    faults.clear()
    assert not faults.is_keepalive_muted(ALICE)


async def _pass_a_held_step() -> list[str]:
    gates, order = Faults().gates, []
    await gates.passed(Step.LOGIN)
    gates.hold(Step.LOGIN)

    async def come() -> None:
        await gates.passed(Step.LOGIN)
        order.append("through")

    comers = [asyncio.create_task(come()) for _ in range(2)]
    await eventually(lambda: gates.waiting[Step.LOGIN] >= 2, every=0)
    order.append("released")
    gates.release(Step.LOGIN)
    await asyncio.gather(*comers)
    assert gates.waiting[Step.LOGIN] == 0
    return order


def test_a_held_step_lets_everyone_through_when_released() -> None:
    assert asyncio.run(_pass_a_held_step()) == ["released", "through", "through"]


def test_a_fault_may_be_for_a_child_of_a_namespace() -> None:
    faults = Faults()
    faults.query_failures.append(QueryFailure(Target(), None, "w:g2/create", 403, "forbidden"))
    assert faults.query_failure(ALICE, "w:g2/create") is not None
    for other in ("w:g2/created", "w:g2/query", "w:g2/", "w:g/create"):
        assert faults.query_failure(ALICE, other) is None
    faults.held_queries.append(HeldQuery(Target(), None, "w:g2"))
    assert faults.hold_query(ALICE, "w:g2/query", lambda: None)
    assert not faults.hold_query(ALICE, "w:g20/query", lambda: None)
