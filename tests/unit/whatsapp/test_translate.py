import datetime
from typing import Any

import pytest
from neonize.proto import Neonize_pb2 as neonize
from neonize.proto.waE2E import WAWebProtobufsE2E_pb2 as e2e

from service.domain.disconnects import Cause
from service.whatsapp import translate
from service.whatsapp.addresses import from_text
from zap.v1 import event_pb2

CHAT, SENDER, OTHER = "49170@s.whatsapp.net", "111:2@lid", "49170:2@s.whatsapp.net"
SENT = datetime.datetime(2026, 11, 23, 12, 0, 1, 500_000, tzinfo=datetime.UTC)
NODE = neonize.Node(Tag="failure")


def text(body: str) -> e2e.Message:
    return e2e.Message(conversation=body)


def source(**changes: Any) -> neonize.MessageSource:
    fields = {
        "Chat": from_text(CHAT),
        "Sender": from_text(SENDER),
        "SenderAlt": from_text(OTHER),
        "RecipientAlt": nobody(),
        "BroadcastListOwner": nobody(),
        "IsFromMe": False,
        "IsGroup": False,
    }
    return neonize.MessageSource(**(fields | changes))


def nobody() -> neonize.JID:
    return neonize.JID(User="", Server="", RawAgent=0, Device=0, Integrator=0, IsEmpty=True)


def event(content: e2e.Message, category: str = "", **changes: Any) -> neonize.Message:
    info = neonize.MessageInfo(
        MessageSource=source(**changes),
        ID="3EB0",
        ServerID=0,
        Type="text",
        Pushname="Friend",
        Timestamp=int(SENT.timestamp() * 1000),
        Category=category,
        Multicast=False,
        MediaType="",
        Edit="",
    )
    flags = ("IsEphemeral", "IsViewOnce", "IsViewOnceV2", "IsViewOnceV2Extension", "IsDocumentWithCaption")
    return neonize.Message(
        Info=info,
        Message=content,
        IsLottieSticker=False,
        IsEdit=False,
        UnavailableRequestID="",
        RetryCount=0,
        **dict.fromkeys(flags, False),
    )


def test_a_message_is_told_with_people_instead_of_devices() -> None:
    frame = translate.message(event(text("hello")))
    assert frame is not None
    assert frame.time.ToDatetime(tzinfo=datetime.UTC) == SENT
    assert frame.event.type == event_pb2.Event.TYPE_MESSAGE_RECEIVED
    assert frame.event.message_received == event_pb2.MessageReceived(
        message_id="3EB0",
        chat=CHAT,
        sender="111@lid",
        sender_alternative="49170@s.whatsapp.net",
        push_name="Friend",
        text="hello",
        raw=text("hello").SerializeToString(),
    )


def test_the_whole_message_is_the_one_before_it_was_unwrapped() -> None:
    whole = e2e.Message(ephemeralMessage=e2e.FutureProofMessage(message=text("hello")))
    inbound = event(text("hello"))
    inbound.Raw.CopyFrom(whole)
    frame = translate.message(inbound)
    assert frame is not None
    assert frame.event.message_received.raw == whole.SerializeToString()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (text("plain"), "plain"),
        (e2e.Message(extendedTextMessage=e2e.ExtendedTextMessage(text="with a link")), "with a link"),
        (e2e.Message(imageMessage=e2e.ImageMessage(caption="a picture")), "a picture"),
        (e2e.Message(videoMessage=e2e.VideoMessage(caption="a film")), "a film"),
        (e2e.Message(documentMessage=e2e.DocumentMessage(caption="a file")), "a file"),
        (e2e.Message(audioMessage=e2e.AudioMessage(seconds=3)), ""),
        (e2e.Message(ephemeralMessage=e2e.FutureProofMessage(message=text("vanishes"))), "vanishes"),
        (e2e.Message(viewOnceMessageV2=e2e.FutureProofMessage(message=text("once"))), "once"),
        (e2e.Message(deviceSentMessage=e2e.DeviceSentMessage(message=text("mine"))), "mine"),
        (
            e2e.Message(
                deviceSentMessage=e2e.DeviceSentMessage(
                    message=e2e.Message(
                        documentWithCaptionMessage=e2e.FutureProofMessage(
                            message=e2e.Message(documentMessage=e2e.DocumentMessage(caption="deep"))
                        )
                    )
                )
            ),
            "deep",
        ),
        (
            e2e.Message(
                protocolMessage=e2e.ProtocolMessage(type=e2e.ProtocolMessage.MESSAGE_EDIT, editedMessage=text("better"))
            ),
            "better",
        ),
        (e2e.Message(), ""),
    ],
)
def test_the_text_is_found_in_every_wrapping(content: e2e.Message, expected: str) -> None:
    assert translate.text_of(content) == expected


KEYS = e2e.Message(senderKeyDistributionMessage=e2e.SenderKeyDistributionMessage(groupID="g"))


def of_protocol(kind: int) -> e2e.Message:
    return e2e.Message(protocolMessage=e2e.ProtocolMessage(type=kind))


@pytest.mark.parametrize(
    "content",
    [
        KEYS,
        e2e.Message(messageContextInfo=e2e.MessageContextInfo(messageSecret=b"s")),
        e2e.Message(),
        of_protocol(e2e.ProtocolMessage.APP_STATE_SYNC_KEY_SHARE),
        of_protocol(e2e.ProtocolMessage.HISTORY_SYNC_NOTIFICATION),
        e2e.Message(ephemeralMessage=e2e.FutureProofMessage(message=KEYS)),
    ],
)
def test_keys_and_agreements_between_devices_are_not_messages(content: e2e.Message) -> None:
    assert translate.message(event(content)) is None


def test_a_text_that_came_with_keys_is_a_message() -> None:
    both = e2e.Message()
    both.CopyFrom(KEYS)
    both.conversation = "hello"
    assert translate.message(event(both)) is not None


@pytest.mark.parametrize("kind", [e2e.ProtocolMessage.REVOKE, e2e.ProtocolMessage.MESSAGE_EDIT])
def test_what_the_protocol_says_about_messages_is_told(kind: int) -> None:
    assert translate.message(event(of_protocol(kind))) is not None


def test_what_the_own_devices_tell_each_other_is_not() -> None:
    assert translate.message(event(text("a key"), category="peer")) is None


def receipt(kind: Any) -> neonize.Receipt:
    return neonize.Receipt(MessageSource=source(), MessageIDs=["A", "B"], Timestamp=int(SENT.timestamp()), Type=kind)


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
    frame = translate.receipt(receipt(kind))
    assert frame is not None
    assert frame.event.type == event_pb2.Event.TYPE_RECEIPT
    assert frame.event.receipt == event_pb2.Receipt(
        message_ids=["A", "B"], kind=expected, chat=CHAT, sender=SENDER, sender_alternative=OTHER
    )
    assert frame.time.seconds == int(SENT.timestamp())


@pytest.mark.parametrize(
    "kind",
    [
        neonize.Receipt.SENDER,
        neonize.Receipt.PEER_MSG,
        neonize.Receipt.HISTORY_SYNC,
    ],
)
def test_what_devices_of_one_account_tell_each_other_is_not_told(kind: int) -> None:
    assert translate.receipt(receipt(kind)) is None


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
