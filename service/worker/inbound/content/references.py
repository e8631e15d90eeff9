"""Converts content about another message: reactions, deletions, votes, pins."""

from typing import Any

from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import KeepType, PinInChatMessage

from service.worker.inbound.content.reading import Reading
from zap.v1 import content_pb2 as pb

_BY_ADMIN = "8"
"""WhatsApp's edit attribute of a deletion by an administrator. The content, which the sender wrote, proves nothing."""
_PINNED = {PinInChatMessage.PIN_FOR_ALL: True, PinInChatMessage.UNPIN_FOR_ALL: False}
_KEPT = {KeepType.KEEP_FOR_ALL: True, KeepType.UNDO_KEEP_FOR_ALL: False}


def reaction(body: Any, reading: Reading) -> pb.ReactionContent:
    """Convert a reaction to a message, or its removal."""
    emoji = reading.bounds.text(body.text)
    return pb.ReactionContent(target=reading.target(body.key), emoji=emoji, is_removed=not body.text)


def revoke(body: Any, reading: Reading) -> pb.RevokeContent:
    """Convert the deletion of a message for all members of its chat."""
    by_admin = reading.source.chat.endswith("@g.us") and reading.source.edit_attribute == _BY_ADMIN
    return pb.RevokeContent(target=reading.target(body.key), by_admin=by_admin)


def poll_vote(body: Any, reading: Reading) -> pb.PollVoteContent:
    """Convert an encrypted vote in a poll."""
    return pb.PollVoteContent(target=reading.target(body.pollCreationMessageKey))


def pin(body: Any, reading: Reading) -> pb.PinContent | None:
    """Convert the pinning or unpinning of a message; return None for an unknown type."""
    if body.type not in _PINNED:
        return None
    return pb.PinContent(target=reading.target(body.key), is_pinned=_PINNED[body.type])


def keep(body: Any, reading: Reading) -> pb.KeepContent | None:
    """Convert the keeping of a message, or its end; return None for an unknown type."""
    if body.keepType not in _KEPT:
        return None
    return pb.KeepContent(target=reading.target(body.key), is_kept=_KEPT[body.keepType])


def encrypted(body: Any, reading: Reading) -> pb.EncryptedContent:
    """Convert content about a message that is encrypted with that message's key."""
    return pb.EncryptedContent(target=reading.target(body.targetMessageKey))


def encrypted_reply(body: Any, reading: Reading) -> pb.EncryptedContent:
    """Convert a reply to an appointment, encrypted with the appointment's key."""
    return pb.EncryptedContent(target=reading.target(body.eventCreationMessageKey))
