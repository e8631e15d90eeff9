"""Converts the context of a message: the quoted message, the mentions, the forwarding count and the advertisement."""

from typing import Any

from service.worker.inbound.content.content import content_of, text_of
from service.worker.inbound.content.limits import ADDRESS, BODY, Bounds, readable
from service.worker.inbound.content.reading import Reading
from service.worker.inbound.content.targets import other_chat
from zap.v1 import content_pb2 as pb

_MAX_QUOTE_CHARACTERS = 1024


def context_of(inner: Any, reading: Reading) -> pb.MessageContext | None:
    """Return the context of an unwrapped message; None if it has none."""
    info = _info(inner)
    if info is None:
        return None
    bounds = reading.bounds
    return pb.MessageContext(
        quote=_quote(info, reading) if info.stanzaID or info.HasField("quotedMessage") else None,
        mentions=[bounds.text(mention) for mention in bounds.items(info.mentionedJID)],
        is_forwarded=info.isForwarded,
        forwarding_score=info.forwardingScore,
        disappearing_seconds=info.expiration,
        advertisement=_advertisement(info.externalAdReply, bounds) if info.HasField("externalAdReply") else None,
    )


def _info(inner: Any) -> Any:
    """Return the contextInfo, for which nearly every content has a field; None if there is none."""
    for field, body in inner.ListFields():
        if field.message_type is None:
            continue
        of_context = field.message_type.fields_by_name.get("contextInfo")
        if of_context is not None and body.HasField("contextInfo"):
            return body.contextInfo
    return None


def _quote(info: Any, reading: Reading) -> pb.Quote:
    bounds = reading.bounds
    # The quoted message has separate bounds, so that a cut of it does not mark this message as truncated.
    quoted = content_of(info.quotedMessage, Reading(reading.source, Bounds(BODY), is_inner=True))
    return pb.Quote(
        message_id=bounds.text(info.stanzaID),
        author=bounds.text(info.participant),
        chat=bounds.text(other_chat(readable(info.remoteJID), reading.source)),
        kind=quoted.kind,
        text=text_of(quoted)[:_MAX_QUOTE_CHARACTERS],
    )


def _advertisement(info: Any, bounds: Bounds) -> pb.Advertisement:
    return pb.Advertisement(
        title=bounds.text(info.title),
        body=bounds.text(info.body, BODY),
        source_type=bounds.text(info.sourceType),
        source_id=bounds.text(info.sourceID),
        source_url=bounds.text(info.sourceURL, ADDRESS),
        click_id=bounds.text(info.ctwaClid),
    )
