"""Keys are written from their sender's point of view; what is told of them is the account's."""

import pytest
from neonize.proto.waCommon.WACommon_pb2 import MessageKey

from service.worker.inbound.content.limits import Bounds
from service.worker.inbound.content.targets import Source, target
from zap.v1 import content_pb2 as pb

FRIEND, GROUP, MEMBER, OTHER = "1@lid", "1-2@g.us", "3@lid", "4@lid"
ME = "49151@s.whatsapp.net"
FROM_FRIEND = Source(FRIEND, FRIEND, from_me=False, is_group=False)
FROM_ME = Source(FRIEND, ME, from_me=True, is_group=False)
IN_GROUP = Source(GROUP, MEMBER, from_me=False, is_group=True)
FROM_ME_IN_GROUP = Source(GROUP, ME, from_me=True, is_group=True)


def key(*, from_me: bool, participant: str = "", chat: str = "") -> MessageKey:
    return MessageKey(ID="X", fromMe=from_me, participant=participant, remoteJID=chat)


@pytest.mark.parametrize(
    ("source", "named", "expected"),
    [
        (FROM_FRIEND, key(from_me=False, chat=ME), pb.MessageTarget(message_id="X", from_me=True)),
        (FROM_FRIEND, key(from_me=True, chat=ME), pb.MessageTarget(message_id="X", author=FRIEND)),
        (FROM_ME, key(from_me=False, chat=FRIEND), pb.MessageTarget(message_id="X", author=FRIEND)),
        (FROM_ME, key(from_me=True, chat=FRIEND), pb.MessageTarget(message_id="X", author=ME, from_me=True)),
        (
            IN_GROUP,
            key(from_me=False, participant=OTHER, chat=GROUP),
            pb.MessageTarget(message_id="X", author=OTHER),
        ),
        (IN_GROUP, key(from_me=True, chat=GROUP), pb.MessageTarget(message_id="X", author=MEMBER)),
        # Nobody passes his own message off as another's, nor another's as a third one's.
        (IN_GROUP, key(from_me=True, participant=OTHER, chat=GROUP), pb.MessageTarget(message_id="X", author=MEMBER)),
        (FROM_FRIEND, key(from_me=True, participant=ME), pb.MessageTarget(message_id="X", author=FRIEND)),
        (FROM_FRIEND, key(from_me=False, participant=OTHER), pb.MessageTarget(message_id="X", from_me=True)),
        (FROM_ME, key(from_me=False, participant=OTHER), pb.MessageTarget(message_id="X", author=FRIEND)),
        (IN_GROUP, key(from_me=False, chat=GROUP), pb.MessageTarget(message_id="X")),
        (
            FROM_ME_IN_GROUP,
            key(from_me=True, chat=GROUP),
            pb.MessageTarget(message_id="X", author=ME, from_me=True),
        ),
        (
            FROM_FRIEND,
            key(from_me=False, participant=ME, chat="status@broadcast"),
            pb.MessageTarget(message_id="X", author=ME, from_me=True, chat="status@broadcast"),
        ),
    ],
)
def test_a_key_is_turned_round(source: Source, named: MessageKey, expected: pb.MessageTarget) -> None:
    assert target(named, source, Bounds()) == expected
