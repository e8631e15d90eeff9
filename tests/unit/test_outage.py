"""What renewals say of an outage, and how claims begin after one."""

import pytest

from service.domain.outage import NEVER_LATE_S, OTHERS_RETURN_S, UNTIL_LATE_S, OutageDetector
from service.domain.placement import CLAIM_GRACE_S

TTL = 10.0
STARTED = 100.0


@pytest.fixture
def outages() -> OutageDetector:
    return OutageDetector(TTL, STARTED)


def test_a_late_renewal_is_no_outage(outages: OutageDetector) -> None:
    outages.renewed(STARTED + 5.0, STARTED + 6.0)
    assert not outages.is_going_on(STARTED + 10.0)
    assert outages.others_awaited_for(STARTED + 6.0) is None
    assert outages.claim_grace_s(STARTED + 6.0) == CLAIM_GRACE_S


def test_half_a_lease_without_a_renewal_is_one(outages: OutageDetector) -> None:
    assert not outages.is_going_on(STARTED + 5.0)
    assert outages.is_going_on(STARTED + 5.1)
    outages.renewed(STARTED + 30.0, STARTED + 30.5)
    assert not outages.is_going_on(STARTED + 30.5)


def test_after_one_others_are_awaited_and_nothing_is_late_for_a_moment(outages: OutageDetector) -> None:
    outages.renewed(STARTED + 30.0, STARTED + 30.5)
    assert outages.others_awaited_for(STARTED + 30.5) == 30.5, "who was heard of since the last renewal before it"
    assert outages.claim_grace_s(STARTED + 30.5) == NEVER_LATE_S
    outages.renewed(STARTED + 30.9, STARTED + 31.0)
    assert outages.others_awaited_for(STARTED + 31.0) == 31.0, "the next renewal does not end the wait"
    assert outages.others_awaited_for(STARTED + 30.5 + OTHERS_RETURN_S) is None
    assert outages.claim_grace_s(STARTED + 31.0 + OTHERS_RETURN_S) == NEVER_LATE_S
    assert outages.claim_grace_s(STARTED + 30.5 + UNTIL_LATE_S) == CLAIM_GRACE_S


def test_a_node_that_has_just_started_waits_for_nobody(outages: OutageDetector) -> None:
    outages.renewed(STARTED, STARTED + 0.1)
    assert outages.others_awaited_for(STARTED + 0.1) is None
    assert outages.claim_grace_s(STARTED + 0.1) == CLAIM_GRACE_S
