"""When a node is not ready for want of Postgres: within 5 s both ways, and not for one slow answer."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from service.api.http import readiness
from service.api.http.readiness import DatabaseProbe
from service.domain.errors import Unavailable
from service.domain.readiness import PROBE_TIMEOUT_S, DatabaseHealth

BOUND_S = 5.0
"""The contract of /readyz."""


def probes(
    health: DatabaseHealth, lost_at: float, back_at: float, until: float, *, is_silent: bool
) -> Iterator[tuple[float, bool]]:
    """Probe from 0 on; yields each moment at which the outcome of a probe is known, and whether the node is ready."""
    now = 0.0
    while now < until:
        if now < lost_at or now >= back_at:
            health.answered(now)
        else:
            if is_silent:
                # What a frozen server was asked it answers when it is continued.
                now = min(now + PROBE_TIMEOUT_S, back_at)
            health.answered(now) if is_silent and now == back_at else health.failed()
        yield now, health.is_reachable
        now += health.next_probe_s


@given(st.floats(0, 10), st.floats(BOUND_S, 60), st.booleans())
def test_an_outage_shows_within_the_bound_and_so_does_its_end(
    lost_at: float, lasts_for: float, is_silent: bool
) -> None:
    back_at = lost_at + lasts_for
    seen = list(probes(DatabaseHealth(0.0), lost_at, back_at, back_at + 20, is_silent=is_silent))
    assert all(is_ready for at, is_ready in seen if at < lost_at)
    lost = [at for at, is_ready in seen if not is_ready]
    assert lost[0] - lost_at <= BOUND_S
    assert all(not is_ready for at, is_ready in seen if lost[0] <= at < back_at)
    assert all(is_ready for at, is_ready in seen if at >= back_at + BOUND_S)


def test_one_probe_that_fails_changes_nothing() -> None:
    health = DatabaseHealth(0.0)
    for now in range(10):
        health.failed()
        assert health.is_reachable
        health.answered(float(now))


class Server:
    """Answers, refuses, or says nothing."""

    def __init__(self) -> None:
        self.refuses = False
        self.is_silent = False

    async def ask(self) -> None:
        if self.is_silent:
            await asyncio.sleep(60)
        if self.refuses:
            raise Unavailable("refused")


@pytest.mark.parametrize("fault", ["refuses", "is_silent"])
async def test_the_probe_says_what_is_wrong_and_logs_it_once(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(readiness, "PROBE_TIMEOUT_S", 0.01)
    server = Server()
    probe = DatabaseProbe(server.ask)
    said: list[str] = []
    with capture_logs() as logs:
        for is_lost in (False, True, True, True, False):
            setattr(server, fault, is_lost)
            await probe.probe()
            said.append((probe.fault or "").rpartition(" for ")[0])
    assert said == ["", "", "Postgres has not answered", "Postgres has not answered", ""], "one is nothing"
    assert [line["log_level"] for line in logs] == ["warning", "info"]
