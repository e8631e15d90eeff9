import datetime

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from service.domain import observations as domain
from service.domain.disconnect_policy import Cause
from service.workers.decode import decode_end, decode_frame
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2

MOMENT = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC)


def stamp(moment: datetime.datetime = MOMENT) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            frames_pb2.Frame(code_shown=frames_pb2.CodeShown(text="2@x", position=2, lifetime=Duration(seconds=20))),
            domain.CodeShown("2@x", 2, datetime.timedelta(seconds=20)),
        ),
        (
            frames_pb2.Frame(device_saved=frames_pb2.DeviceSaved(jid="1:2@s", lid="3@lid", platform="android")),
            domain.DeviceSaved("1:2@s", "3@lid", "android"),
        ),
        (
            frames_pb2.Frame(connected=frames_pb2.Connected(jid="1:2@s", lid="3@lid", push_name="Me")),
            domain.Connected("1:2@s", "3@lid", "Me"),
        ),
        (frames_pb2.Frame(disconnected=frames_pb2.Disconnected()), domain.Disconnected()),
        (frames_pb2.Frame(keep_alive_timeout=frames_pb2.KeepAliveTimeout()), domain.KeepAliveTimeout()),
        (frames_pb2.Frame(keep_alive_restored=frames_pb2.KeepAliveRestored()), domain.KeepAliveRestored()),
        (frames_pb2.Frame(push_name=frames_pb2.PushName(name="Me")), domain.PushNameChanged("Me")),
    ],
)
def test_a_frame_is_what_the_core_knows_of_it(frame: frames_pb2.Frame, expected: domain.Observation) -> None:
    frame.time.CopyFrom(stamp())
    frame.number = 7
    assert decode_frame(frame) == domain.Observed(expected, MOMENT, 7)


RECEIVED = event_pb2.Event(
    type=event_pb2.Event.TYPE_MESSAGE_RECEIVED, message_received=event_pb2.MessageReceived(message_id="A", text="t")
)


def test_what_consumers_are_told_goes_through_as_it_is() -> None:
    seen = decode_frame(frames_pb2.Frame(number=7, time=stamp(), event=RECEIVED))
    assert seen == domain.Observed(domain.InboundEvent("MESSAGE_RECEIVED", RECEIVED.SerializeToString()), MOMENT, 7)


@pytest.mark.parametrize(
    ("kind", "delivered"),
    [
        (event_pb2.Receipt.KIND_READ, domain.DeliveryReport(("A", "B"), "READ", ("1:2@lid", "49:2@s"))),
        (event_pb2.Receipt.KIND_RETRY, domain.DeliveryReport(("A", "B"), "RETRY", ("1:2@lid", "49:2@s"))),
        (event_pb2.Receipt.KIND_UNSPECIFIED, None),
    ],
)
def test_the_core_knows_of_a_receipt_what_it_says_of_which_messages(
    kind: "event_pb2.Receipt.Kind.ValueType", delivered: domain.DeliveryReport | None
) -> None:
    receipt = event_pb2.Receipt(message_ids=["A", "B"], kind=kind, sender="1:2@lid", sender_alternative="49:2@s")
    seen = decode_frame(frames_pb2.Frame(event=event_pb2.Event(type=event_pb2.Event.TYPE_RECEIPT, receipt=receipt)))
    assert seen is not None
    assert isinstance(seen.observation, domain.InboundEvent)
    assert (seen.observation.kind, seen.observation.delivered) == ("RECEIPT", delivered)


def test_the_core_knows_of_a_resend_that_failed() -> None:
    failed = event_pb2.ResendFailed(message_id="A", chat="1@lid", device="1:2@lid")
    event = event_pb2.Event(type=event_pb2.Event.TYPE_RESEND_FAILED, resend_failed=failed)
    seen = decode_frame(frames_pb2.Frame(event=event))
    assert seen is not None
    told = domain.DeliveryReport(("A",), "RESEND_FAILED", ("1:2@lid",))
    assert seen.observation == domain.InboundEvent("RESEND_FAILED", event.SerializeToString(), told)


@pytest.mark.parametrize(
    "frame",
    [
        frames_pb2.Frame(progress=frames_pb2.Progress()),
        frames_pb2.Frame(reply=frames_pb2.Reply(call_id=1)),
        frames_pb2.Frame(log_line=frames_pb2.LogLine()),
        frames_pb2.Frame(),
    ],
)
def test_what_is_about_the_process_is_no_observation(frame: frames_pb2.Frame) -> None:
    assert decode_frame(frame) is None


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_is_understood(cause: Cause) -> None:
    body = frames_pb2.Ended(cause=cause.name, detail="why", until=stamp())
    assert decode_end(body) == domain.Ended(cause, "why", MOMENT)


def test_an_unknown_cause_counts_as_a_fault_of_the_client_and_keeps_its_name() -> None:
    assert decode_end(frames_pb2.Ended(cause="NEW", detail="why")) == domain.Ended(Cause.CLIENT_ERROR, "NEW: why")
