"""The job that deletes what is old goes on until nothing is left, and goes on whatever fails."""

import asyncio
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.domain.errors import Unavailable
from service.maintenance.retention import DELETE_BATCH_ROWS, Retention
from service.telemetry.metrics import MaintenanceMetrics
from tests.eventually import eventually
from tests.fakes.log_maintenance import FakeLogMaintenance

SOON = timedelta(milliseconds=10)


async def test_everything_that_is_old_goes_in_batches() -> None:
    upkeep = FakeLogMaintenance(
        events=2 * DELETE_BATCH_ROWS + 1, messages=DELETE_BATCH_ROWS, decrypted=DELETE_BATCH_ROWS + 1, sent=1
    )
    registry = CollectorRegistry()
    running = asyncio.create_task(Retention(upkeep, MaintenanceMetrics(registry), events=SOON, messages=SOON).run())
    await eventually(lambda: not (upkeep.events or upkeep.messages or upkeep.decrypted or upkeep.sent))
    running.cancel()
    for table, rows in (
        ("event", 2 * DELETE_BATCH_ROWS + 1),
        ("message", DELETE_BATCH_ROWS),
        ("whatsmeow_event_buffer", DELETE_BATCH_ROWS + 1),
        ("whatsmeow_retry_buffer", 1),
    ):
        assert registry.get_sample_value("zap_rows_deleted_total", {"table": table}) == rows
    assert registry.get_sample_value("zap_retention_last_success_time_seconds")
    assert registry.get_sample_value("zap_event_oldest_age_seconds") == 0.0


@pytest.mark.parametrize(
    ("fault", "lines"), [(Unavailable("away", reason="DATABASE_UNAVAILABLE"), 1), (RuntimeError("a fault of ours"), 3)]
)
async def test_whatever_fails_is_said_and_tried_again(fault: Exception, lines: int) -> None:
    upkeep = FakeLogMaintenance(events=1)
    upkeep.fault = fault
    registry = CollectorRegistry()
    with capture_logs() as logs:
        running = asyncio.create_task(Retention(upkeep, MaintenanceMetrics(registry), events=SOON, messages=SOON).run())
        await eventually(lambda: upkeep.calls >= 3)
        # An outage is said once, a fault of ours each time.
        await eventually(lambda: len(logs) >= lines)
        upkeep.fault = None
        await eventually(lambda: not upkeep.events)
        running.cancel()
    assert len(logs) >= lines
    assert (registry.get_sample_value("zap_retention_failures_total") or 0) >= 3
    if lines == 1:
        assert len(logs) == 1
