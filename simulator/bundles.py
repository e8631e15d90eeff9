"""Converts prekeys to and from stanzas, which devices upload, get from the server and add to retry receipts."""

from __future__ import annotations

from simulator.binary_xml import Node, node
from simulator.prekeys import PreKey, PreKeyBundle
from simulator.signing import DJB_TYPE


def registration_stanza(registration_id: int) -> Node:
    """Return a device's registration id."""
    return node("registration", {}, registration_id.to_bytes(4, "big"))


def key_stanzas(bundle: PreKeyBundle) -> list[Node]:
    """Return the keys of a bundle."""
    one_time = [_prekey_stanza("key", bundle.one_time)] if bundle.one_time else []
    return [
        node("type", {}, DJB_TYPE),
        node("identity", {}, bundle.identity),
        *one_time,
        _prekey_stanza("skey", bundle.signed),
    ]


def bundle_in_retry(receipt: Node) -> PreKeyBundle | None:
    """Return the bundle that a device adds to its retry receipt; None if it adds none."""
    registration, keys = receipt.find("registration"), receipt.find("keys")
    if registration is None or keys is None:
        return None
    identity, one_time, signed = keys.find("identity"), keys.find("key"), keys.find("skey")
    if identity is None or signed is None:
        return None
    return PreKeyBundle(
        int.from_bytes(registration.data, "big"),
        identity.data,
        read_prekey(signed),
        read_prekey(one_time) if one_time else None,
    )


def read_prekey(stanza: Node) -> PreKey:
    """Return the prekey in a <key> or <skey>."""
    parts = {part.tag: part.data for part in stanza.children}
    return PreKey(int.from_bytes(parts.get("id", b""), "big"), parts.get("value", b""), parts.get("signature", b""))


def _prekey_stanza(tag: str, key: PreKey) -> Node:
    signature = [node("signature", {}, key.signature)] if key.signature else []
    return node(tag, {}, node("id", {}, key.id.to_bytes(3, "big")), node("value", {}, key.public), *signature)
