"""What is about another message: reactions, deletions, votes, pins. WhatsApp's bodies in, zap.v1's out."""

from typing import Any

from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import KeepType, PinInChatMessage

from service.worker.inbound.content.reading import Reading
from zap.v1 import content_pb2 as pb

_BY_ADMIN = "8"
"""WhatsApp's edit attribute of what an administrator deleted: what the sender says of it counts for nothing."""
_PINNED = {PinInChatMessage.PIN_FOR_ALL: True, PinInChatMessage.UNPIN_FOR_ALL: False}
_KEPT = {KeepType.KEEP_FOR_ALL: True, KeepType.UNDO_KEEP_FOR_ALL: False}


def reaction(body: Any, reading: Reading) -> pb.ReactionContent:
    """An emoji on a message, or none any more."""
    emoji = reading.bounds.text(body.text)
    return pb.ReactionContent(target=reading.target(body.key), emoji=emoji, is_removed=not body.text)


def revoke(body: Any, reading: Reading) -> pb.RevokeContent:
    """A message that was deleted for everybody."""
    by_admin = reading.source.chat.endswith("@g.us") and reading.source.edit_attribute == _BY_ADMIN
    return pb.RevokeContent(target=reading.target(body.key), by_admin=by_admin)


def poll_vote(body: Any, reading: Reading) -> pb.PollVoteContent:
    """An answer to a poll, encrypted."""
    return pb.PollVoteContent(target=reading.target(body.pollCreationMessageKey))


def pin(body: Any, reading: Reading) -> pb.PinContent | None:
    """A message that is pinned, or no longer; None for what else may become of one."""
    if body.type not in _PINNED:
        return None
    return pb.PinContent(target=reading.target(body.key), is_pinned=_PINNED[body.type])


def keep(body: Any, reading: Reading) -> pb.KeepContent | None:
    """A message that is kept, or no longer; None for what else may become of one."""
    if body.keepType not in _KEPT:
        return None
    return pb.KeepContent(target=reading.target(body.key), is_kept=_KEPT[body.keepType])


def encrypted(body: Any, reading: Reading) -> pb.EncryptedContent:
    """Something about a message, under its key."""
    return pb.EncryptedContent(target=reading.target(body.targetMessageKey))


def encrypted_reply(body: Any, reading: Reading) -> pb.EncryptedContent:
    """An answer to an appointment, under the key of that."""
    return pb.EncryptedContent(target=reading.target(body.eventCreationMessageKey))
