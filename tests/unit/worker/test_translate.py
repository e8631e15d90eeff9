import datetime
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from neonize.proto import Neonize_pb2 as neonize

from service.domain.disconnect_policy import Cause
from service.worker.inbound import translate
from service.worker.session.log_parser import ResendFailed
from tests.unit.worker.inbound import CHAT, OTHER, SENDER, SENT, TEN_YEARS_AHEAD, source
from zap.v1 import event_pb2

NODE = neonize.Node(Tag="failure")


def receipt(kind: Any, message_ids: Sequence[str] = ("A", "B")) -> neonize.Receipt:
    return neonize.Receipt(MessageSource=source(), MessageIDs=message_ids, Timestamp=int(SENT.timestamp()), Type=kind)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (neonize.Receipt.DELIVERED, event_pb2.Receipt.KIND_DELIVERED),
        (neonize.Receipt.INACTIVE, event_pb2.Receipt.KIND_DELIVERED),
        (neonize.Receipt.READ, event_pb2.Receipt.KIND_READ),
        (neonize.Receipt.PLAYED, event_pb2.Receipt.KIND_PLAYED),
        (neonize.Receipt.RETRY, event_pb2.Receipt.KIND_RETRY),
        (neonize.Receipt.READ_SELF, event_pb2.Receipt.KIND_READ_BY_OWNER),
        (neonize.Receipt.PLAYED_SELF, event_pb2.Receipt.KIND_PLAYED_BY_OWNER),
        # neonize calls it so.
        (neonize.Receipt.SERVER_ERROR, event_pb2.Receipt.KIND_PLAYED_BY_OWNER),
    ],
)
def test_a_receipt_says_how_far_messages_came(kind: int, expected: Any) -> None:
    (frame,) = translate.receipts(receipt(kind))
    assert frame.event.type == event_pb2.Event.TYPE_RECEIPT
    assert frame.event.receipt == event_pb2.Receipt(
        message_ids=["A", "B"], kind=expected, chat=CHAT, sender=SENDER, sender_alternative=OTHER
    )
    assert frame.time.seconds == int(SENT.timestamp())


@pytest.mark.parametrize("seconds", [0, -1, 2**62, TEN_YEARS_AHEAD])
def test_a_receipt_whose_time_makes_no_sense_has_none(seconds: int) -> None:
    told = receipt(neonize.Receipt.READ)
    told.Timestamp = seconds
    (frame,) = translate.receipts(told)
    assert not frame.HasField("time")


def test_a_receipt_for_more_messages_than_an_event_holds_is_told_in_parts() -> None:
    message_ids = [str(number).ljust(500, "x") for number in range(20_000)]
    frames = list(translate.receipts(receipt(neonize.Receipt.READ, message_ids)))
    assert all(frame.ByteSize() < 2 * 1024 * 1024 for frame in frames)
    assert len({frame.origin for frame in frames}) == len(frames) == 20
    told = [message_id for frame in frames for message_id in frame.event.receipt.message_ids]
    assert told == [message_id[:128] for message_id in message_ids]


@pytest.mark.parametrize(
    "kind",
    [
        neonize.Receipt.SENDER,
        neonize.Receipt.PEER_MSG,
        neonize.Receipt.HISTORY_SYNC,
    ],
)
def test_what_devices_of_one_account_tell_each_other_is_not_told(kind: int) -> None:
    assert not list(translate.receipts(receipt(kind)))


def test_a_resend_that_failed_is_told_once_and_waits_for_nobody() -> None:
    sign = ResendFailed("1@lid", "A" * 129, "1:2@lid", event_pb2.ResendFailed.REASON_NOT_KEPT)
    frame = translate.resend_failed(sign)
    assert frame.number == 0
    assert frame.event.resend_failed == event_pb2.ResendFailed(
        message_id="A" * 128, chat="1@lid", device="1:2@lid", reason=event_pb2.ResendFailed.REASON_NOT_KEPT
    )
    assert len(frame.origin) == 16
    assert translate.resend_failed(sign).origin == frame.origin
    assert translate.resend_failed(replace(sign, device="1:3@lid")).origin != frame.origin


@pytest.mark.parametrize(
    ("on_connect", "reason", "cause"),
    [
        (False, neonize.LOGGED_OUT, Cause.LOGGED_OUT_ON_PHONE),
        (True, neonize.LOGGED_OUT, Cause.LOGGED_OUT_BY_WHATSAPP),
        (True, neonize.UNKNOWN_LOGOUT, Cause.ACCOUNT_BANNED),
        (True, neonize.MAIN_DEVICE_GONE, Cause.ACCOUNT_LOCKED),
    ],
)
def test_a_logout_tells_who_did_it(on_connect: bool, reason: int, cause: Cause) -> None:
    assert translate.logged_out(neonize.LoggedOut(OnConnect=on_connect, Reason=reason)).cause == cause.name


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (neonize.GENERIC, Cause.CONNECTION_REFUSED),
        (neonize.BAD_USER_AGENT, Cause.CLIENT_OUTDATED),
        (neonize.INTERNAL_SERVER_ERROR, Cause.WHATSAPP_ERROR),
        (neonize.SERVICE_UNAVAILABLE, Cause.WHATSAPP_ERROR),
    ],
)
def test_a_refused_login_stays_refused_unless_the_fault_is_theirs(reason: int, cause: Cause) -> None:
    ended = translate.connect_failure(neonize.ConnectFailure(Reason=reason, Message="words", Raw=NODE))
    assert ended.cause == cause.name
    assert "words" in ended.detail


def test_a_ban_ends_when_whatsapp_said() -> None:
    ban = neonize.TemporaryBan(Code=neonize.TemporaryBan.BLOCKED_BY_USERS, Expire=3600)
    ended = translate.temporary_ban(ban, SENT)
    assert ended.until.ToDatetime(tzinfo=datetime.UTC) == SENT + datetime.timedelta(hours=1)
    assert ended.detail == "BLOCKED_BY_USERS"


@pytest.mark.parametrize("seconds", [0, -5, 2**62])
def test_a_ban_without_an_end_that_makes_sense_names_none(seconds: int) -> None:
    ban = neonize.TemporaryBan(Code=neonize.TemporaryBan.BLOCKED_BY_USERS, Expire=seconds)
    assert not translate.temporary_ban(ban, SENT).HasField("until")
