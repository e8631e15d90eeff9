"""Checks, before a node starts, that all nodes of the database have the same ZAP_NODE_SECRET.

A node with another secret would claim sessions, but calls could not be forwarded between it and the others.
"""

import asyncio
import hashlib
from collections.abc import Sequence

from service.store.queries import statement
from service.store.startup_checks import connected

#: scrypt with 16 MB and a tenth of a second, so that few secrets can be tried against a stolen fingerprint.
_COST = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}


class NodeSecretDiffers(Exception):
    """Live nodes have another secret; the message names the setting and the remedy."""


async def fingerprint(url: str, secret: str) -> bytes | None:
    """Return the secret's fingerprint, salted for this database; None if its schema is older."""
    async with connected(url) as connection:
        if await connection.fetchval("SELECT to_regclass('zap.node_secret')") is None:
            return None
        salt = await connection.fetchval(statement("node_secret_salt"))
    return await asyncio.to_thread(hashlib.scrypt, secret.encode(), salt=salt, **_COST)


async def agree_on_secret(url: str, mine: bytes) -> None:
    """Store the fingerprint for all nodes. Raises NodeSecretDiffers if a live node has another one."""
    async with connected(url) as connection, connection.transaction():
        found = await connection.fetchrow(statement("lock_node_secret"))
        # A separate statement after the lock, so that it sees nodes that started while this one waited.
        nodes = [row["node"] for row in await connection.fetch(statement("living_nodes"))]
        if found["fingerprint"] not in (None, mine) and (nodes or found["is_fresh"]):
            raise NodeSecretDiffers(_message(nodes))
        await connection.execute(statement("use_node_secret"), mine)


def _message(nodes: Sequence[str]) -> str:
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
