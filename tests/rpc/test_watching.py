"""EventService over the wire."""

from datetime import UTC, datetime

from structlog.testing import capture_logs

from service.domain.log_positions import LogPosition
from service.domain.watch import LoggedEvent
from tests.fakes.serving import FakeService
from zap.v1 import event_pb2, watch_pb2
from zap.v1.watch_pb2_grpc import EventServiceStub

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GOOD = event_pb2.Event(message_received=event_pb2.MessageReceived(text="hello")).SerializeToString()
NOT_PROTOBUF = b"\xff\xff\xff"


def logged(number: int, payload: bytes) -> LoggedEvent:
    return LoggedEvent(LogPosition(7, number), "shop", number, NOW, NOW, "MESSAGE_RECEIVED", payload)


def test_an_event_that_cannot_be_parsed_is_left_out_named_counted_and_passed() -> None:
    with FakeService() as service, service.channel() as channel, capture_logs() as lines:
        service.watching.logged += [logged(1, GOOD), logged(2, NOT_PROTOBUF), logged(3, GOOD), logged(4, NOT_PROTOBUF)]
        stream = EventServiceStub(channel).Watch(watch_pb2.WatchRequest(from_start=True), timeout=30)
        begun, first, third, caught_up = (next(stream) for _ in range(4))
        stream.cancel()
        assert begun.HasField("bookmark")
        assert [(given.event.sequence, given.resume_token) for given in (first, third)] == [(1, "1"), (3, "3")]
        assert caught_up.bookmark.is_caught_up
        assert caught_up.resume_token == "4", "whoever resumes here does not meet it again"
        assert service.registry.get_sample_value("zap_watch_events_unreadable_total") == 2
    (said, _) = [line for line in lines if line["log_level"] == "error"]
    assert (said["session_id"], said["sequence"], said["event_id"], said["xid"]) == ("shop", 2, 2, 7)
