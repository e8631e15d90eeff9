"""Builds the message of each content of SendRequest. Reactions, which are about another message, are in messages.py."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import message
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import (
    ContactMessage,
    ContactsArrayMessage,
    ContextInfo,
    ExtendedTextMessage,
    LocationMessage,
    Message,
    PollCreationMessage,
)

from service.worker.outbound.media import MEDIA_CONTENTS
from service.worker.outbound.vcards import vcard
from zap.v1 import message_pb2 as pb

_MENTIONS_EVERYONE = 1


def text_message(text: pb.Text, context: ContextInfo | None) -> Message:
    """Return a text, plain if it has no mentions, no preview and no context."""
    if not (text.mentions or text.mentions_everyone or text.HasField("preview") or context):
        # Do not let neonize build the message from the text: it would fetch every link in it (docs/neonize.md).
        return Message(conversation=text.body)
    extended = ExtendedTextMessage(text=text.body, contextInfo=context)
    extended.contextInfo.mentionedJID.extend(text.mentions)
    if text.mentions_everyone:
        extended.contextInfo.nonJIDMentions = _MENTIONS_EVERYONE
    if text.HasField("preview"):
        preview = text.preview
        extended.matchedText, extended.title = preview.link, preview.title
        extended.description, extended.JPEGThumbnail = preview.description, preview.thumbnail
    return Message(extendedTextMessage=extended)


def _location(location: pb.Location, context: ContextInfo | None) -> Message:
    built = LocationMessage(
        degreesLatitude=location.latitude,
        degreesLongitude=location.longitude,
        name=location.name,
        address=location.address,
        contextInfo=context,
    )
    return Message(locationMessage=built)


def _contacts(contacts: pb.ContactCards, context: ContextInfo | None) -> Message:
    cards = [ContactMessage(displayName=card.name, vcard=vcard(card)) for card in contacts.cards]
    if len(cards) == 1:
        cards[0].contextInfo.MergeFrom(context or ContextInfo())
        return Message(contactMessage=cards[0])
    title = f"{len(cards)} contacts"
    return Message(contactsArrayMessage=ContactsArrayMessage(displayName=title, contacts=cards, contextInfo=context))


def _poll(poll: pb.Poll, context: ContextInfo | None) -> Message:
    # Of the later versions of this field, the library does not recognise a poll in each.
    built = PollCreationMessage(
        name=poll.question,
        options=[PollCreationMessage.Option(optionName=option) for option in poll.options],
        selectableOptionsCount=poll.most_choices,
        contextInfo=context,
    )
    return Message(pollCreationMessage=built)


CONTENTS: Mapping[type[message.Message], Callable[[Any, ContextInfo | None], Message]] = {
    pb.Text: text_message,
    pb.Location: _location,
    pb.ContactCards: _contacts,
    pb.Poll: _poll,
    **MEDIA_CONTENTS,
}
"""Functions that build the message of a content with its context, by the content's type."""
