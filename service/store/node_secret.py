"""Before a node starts: do the nodes of this database have the same ZAP_NODE_SECRET?

With another one it would claim sessions, and no call could be passed on between it and the others.
"""

import asyncio
import hashlib
from collections.abc import Sequence

from service.store.queries import statement
from service.store.startup_checks import connected

#: scrypt with 16 MB, a tenth of a second: who reads the fingerprint can try few secrets.
_COST = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}


class NodeSecretDiffers(Exception):
    """Living nodes have another secret; the message says which setting it is, and what to do."""


async def fingerprint(url: str, secret: str) -> bytes | None:
    """Derive what tells the secret from others, for this database alone; None: its schema is older."""
    async with connected(url) as connection:
        if await connection.fetchval("SELECT to_regclass('zap.node_secret')") is None:
            return None
        salt = await connection.fetchval(statement("node_secret_salt"))
    return await asyncio.to_thread(hashlib.scrypt, secret.encode(), salt=salt, **_COST)


async def agree_on_secret(url: str, mine: bytes) -> None:
    """Return once this fingerprint is that of all nodes: it was, or no other node lives. Raises NodeSecretDiffers."""
    async with connected(url) as connection, connection.transaction():
        found = await connection.fetchrow(statement("lock_node_secret"))
        # A statement of its own, behind the lock: nodes that start at once come here one after the other.
        nodes = [row["node"] for row in await connection.fetch(statement("living_nodes"))]
        if found["fingerprint"] not in (None, mine) and (nodes or found["is_fresh"]):
            raise NodeSecretDiffers(_words(nodes))
        await connection.execute(statement("use_node_secret"), mine)


def _words(nodes: Sequence[str]) -> str:
    whose = (
        f"the nodes that run on this database ({', '.join(nodes)}) have"
        if nodes
        else "a node that has just started has"
    )
    return (
        f"ZAP_NODE_SECRET (or ZAP_AUTH_TOKEN, where that is not set): {whose} another one than this node, and calls"
        " could not be passed on between them. Set it to the same value on all nodes. To change it, stop all nodes"
        " first; one that was killed counts for ZAP_LEASE_TTL, and one that has just started for 10 s"
    )
