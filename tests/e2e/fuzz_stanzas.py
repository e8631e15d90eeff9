"""Stanzas by chance, of the kinds that tell of what happens: no two fields of one need make sense together."""

import random
from collections.abc import Iterator

from simulator.binary_xml import Node, Value, node
from simulator.jid import Jid

_ADDRESSES = (
    *(Jid("998877665544", "lid"), Jid("998877665544", "lid", 3), Jid("4915777777777")),
    *(Jid("120363000000000001", "g.us"), Jid("", "s.whatsapp.net"), Jid("", "g.us"), Jid("1", "newsletter")),
    *(Jid("status", "broadcast"), Jid("0"), Jid("nobody", "nowhere")),
)
_WORDS = ("", "0", "-1", "1", "1700000000", "99999999999999999999", "never", "group", "video", "unavailable", "deny")
_ATTRIBUTES = """
from participant participant_pn id t type jid phone_number lid call-id media call-creator caller_pn group-jid reason
subject s_t s_o expiration code last v_id author platform version notify addressing_mode creator creator_pn
unlink_reason
"""
_PARTS = """
offer offer_notice accept terminate reject preaccept video add remove promote demote participant subject description
body delete locked unlocked announcement not_announcement ephemeral not_ephemeral invite create group requested_user
created_membership_requests revoked_membership_requests membership_approval_mode suspended modify set identity
linked_parent parent incognito nonsense
"""
_KINDS = (
    *[("notification", "w:gp2")] * 4,
    *(("notification", "picture"), ("notification", "encrypt"), ("notification", "account_sync"), ("call", None)),
    *(("call", None), ("presence", None), ("chatstate", None)),
)


def stanzas(seed: int, count: int) -> Iterator[Node]:
    """So many of them; those of one seed are the same each time.

    None has a chat state, a medium of one or a kind of link that neonize has no number for.
    """
    chance = random.Random(seed)
    for number in range(count):
        tag, kind = chance.choice(_KINDS)
        attrs = {"from": chance.choice(_ADDRESSES), "t": "1700000000", **_attrs(chance)}
        attrs["id"] = f"R{number}"
        if kind is not None:
            attrs["type"] = kind
        yield node(tag, attrs, *(_state(chance) if tag == "chatstate" else _parts(chance, 3)))


def _attrs(chance: random.Random) -> dict[str, Value]:
    names = chance.sample(_ATTRIBUTES.split(), chance.randrange(6))
    return {name: chance.choice(_ADDRESSES) if chance.random() < 0.5 else chance.choice(_WORDS) for name in names}


def _parts(chance: random.Random, depth: int) -> list[Node | bytes]:
    if depth == 0 or chance.random() < 0.1:
        return [b"some bytes"] if chance.random() < 0.5 else []
    tags = chance.choices(_PARTS.split(), k=chance.choice((0, 1, 1, 1, 2, 3)))
    return [node(tag, _attrs(chance), *_parts(chance, depth - 1)) for tag in tags]


def _state(chance: random.Random) -> list[Node | bytes]:
    return [node(chance.choice(("composing", "paused")), {"media": chance.choice(("audio", None))})]
