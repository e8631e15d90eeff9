"""What a message replies to, whom it mentions, where it comes from."""

import pytest
from neonize.proto.waE2E import WAWebProtobufsE2E_pb2 as e2e

from service.worker.inbound.content.limits import ITEMS
from tests.unit.worker.inbound import CHAT, told
from zap.v1 import content_pb2 as pb


def reply(info: e2e.ContextInfo) -> pb.MessageContext:
    return told(e2e.Message(extendedTextMessage=e2e.ExtendedTextMessage(text="yes", contextInfo=info))).context


def quoting(message: e2e.Message) -> pb.Quote:
    return reply(e2e.ContextInfo(stanzaID="Q", participant="1@lid", quotedMessage=message)).quote


@pytest.mark.parametrize(
    ("quoted", "kind", "text"),
    [
        (e2e.Message(conversation="lunch?"), pb.Content.KIND_TEXT, "lunch?"),
        (e2e.Message(imageMessage=e2e.ImageMessage(caption="look")), pb.Content.KIND_IMAGE, "look"),
        (e2e.Message(conversation="x" * 5000), pb.Content.KIND_TEXT, "x" * 1024),
        (e2e.Message(audioMessage=e2e.AudioMessage(seconds=1)), pb.Content.KIND_AUDIO, ""),
        (e2e.Message(), pb.Content.KIND_UNSPECIFIED, ""),
    ],
)
def test_a_reply_says_what_it_replies_to(quoted: e2e.Message, kind: "pb.Content.Kind.ValueType", text: str) -> None:
    assert quoting(quoted) == pb.Quote(message_id="Q", author="1@lid", kind=kind, text=text)


def test_a_reply_in_another_chat_names_that_chat() -> None:
    assert reply(e2e.ContextInfo(stanzaID="Q", remoteJID="1-2@g.us")).quote.chat == "1-2@g.us"
    assert reply(e2e.ContextInfo(stanzaID="Q", remoteJID=CHAT)).quote.chat == ""


def test_mentions_forwards_and_timers_are_told() -> None:
    context = reply(
        e2e.ContextInfo(mentionedJID=["1@lid", "2@lid"], isForwarded=True, forwardingScore=7, expiration=86_400)
    )
    assert context == pb.MessageContext(
        mentions=["1@lid", "2@lid"], is_forwarded=True, forwarding_score=7, disappearing_seconds=86_400
    )


def test_the_advertisement_that_somebody_came_by_is_told() -> None:
    ad = e2e.ContextInfo.ExternalAdReplyInfo(
        title="Sale", body="now", sourceType="ad", sourceID="9", sourceURL="https://ad", ctwaClid="click"
    )
    assert reply(e2e.ContextInfo(externalAdReply=ad)).advertisement == pb.Advertisement(
        title="Sale", body="now", source_type="ad", source_id="9", source_url="https://ad", click_id="click"
    )


def test_a_message_without_a_context_has_none() -> None:
    assert not told(e2e.Message(conversation="plain")).HasField("context")


def test_the_context_of_a_picture_is_found() -> None:
    message = e2e.Message(imageMessage=e2e.ImageMessage(contextInfo=e2e.ContextInfo(isForwarded=True)))
    assert told(message).context.is_forwarded


def test_more_mentions_than_anybody_reads_are_cut() -> None:
    info = e2e.ContextInfo(mentionedJID=["1@lid"] * (ITEMS + 1))
    received = told(e2e.Message(extendedTextMessage=e2e.ExtendedTextMessage(text="all", contextInfo=info)))
    assert (len(received.context.mentions), received.is_truncated) == (ITEMS, True)
