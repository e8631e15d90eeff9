"""The fence: what becomes of a session whose lease runs out."""

import time
from dataclasses import dataclass

import pytest

from service.domain.lease import LeaseTimes
from service.ownership.lease_expiry import LeaseExpiryMonitor

TIMES = LeaseTimes(10.0)


@dataclass
class Session:
    """A runner, as far as its lease is concerned."""

    safe_until: float
    fate: str = "goes on"
    session_id: str = "anna"

    def permit(self, safe_until: float) -> None:
        self.safe_until = safe_until

    def lose(self) -> None:
        self.fate = "is killed"


@pytest.mark.parametrize(
    ("left", "fate"),
    [
        (TIMES.kill + 0.2, "goes on"),
        (TIMES.kill - 0.1, "is killed"),
        (-60.0, "is killed"),
    ],
)
def test_a_process_is_killed_just_before_its_permit_would_end_it(left: float, fate: str) -> None:
    session = Session(time.monotonic() + left)
    LeaseExpiryMonitor(TIMES, lambda: [session]).look()
    assert session.fate == fate


def test_a_session_without_an_epoch_has_nothing_to_lose() -> None:
    session = Session(0.0)
    LeaseExpiryMonitor(TIMES, lambda: [session]).look()
    assert session.fate == "goes on"


def test_one_failed_renewal_stops_nobody() -> None:
    """A renewal that fails, and one after it that succeeds as late as it may, leave the process alone."""
    times = LeaseTimes(2.5)
    late = times.renew_every + 2 * times.renew_timeout
    assert times.safe_until(0.0) - late >= times.kill
