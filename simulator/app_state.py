"""Writes and reads app state as a phone does: the account's push name, in patches that linked devices verify."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from simulator.derivation import hkdf, hmac_sha256
from simulator.schemas import (
    AppStateKey,
    AppStateKeyData,
    AppStateKeyFingerprint,
    AppStateKeyId,
    AppStateKeyShare,
    Blob,
    KeyId,
    PushNameSetting,
    SyncActionData,
    SyncActionValue,
    SyncdMutation,
    SyncdPatch,
    SyncdRecord,
    SyncdVersion,
)
from simulator.symmetric import decrypt_cbc, encrypt_cbc

PUSH_NAME_COLLECTION = "critical_block"
_SET = b"\x01"
_LANES = struct.Struct("<64H")


@dataclass(frozen=True)
class _Keys:
    """The five keys derived from one app state key."""

    index: bytes
    value_encryption: bytes
    value_mac: bytes
    snapshot_mac: bytes
    patch_mac: bytes

    @classmethod
    def derive(cls, secret: bytes) -> _Keys:
        material = hkdf(secret, 160, info=b"WhatsApp Mutation Keys")
        return cls(*(material[start : start + 32] for start in range(0, 160, 32)))


class AppState:
    """The app state of one account: one key, a patch that sets the push name, and those of linked devices."""

    def __init__(self, push_name: str) -> None:
        self._key_id = os.urandom(6)
        self._secret = os.urandom(32)
        self._made_at = int(time.time() * 1000)
        self.push_name = push_name
        self._patches = {PUSH_NAME_COLLECTION: [self._push_name_patch(push_name).encode()]}

    def key_share(self) -> AppStateKeyShare:
        """Return the message that gives a newly linked device the key of the patches."""
        data = AppStateKeyData(self._secret, AppStateKeyFingerprint(1, 0, [0]), self._made_at)
        return AppStateKeyShare([AppStateKey(AppStateKeyId(self._key_id), data)])

    def patches_after(self, collection: str, version: int) -> list[bytes]:
        """Return the patches of a collection that a device at this version lacks."""
        return self._patches.get(collection, [])[version:]

    def append(self, collection: str, version: int, patch: bytes) -> bool:
        """Append the patch of a linked device at this version. Return False if there are newer patches."""
        patches = self._patches.setdefault(collection, [])
        if version != len(patches):
            return False
        # The fields of both are one message: the server adds the version.
        patches.append(patch + SyncdPatch(version=SyncdVersion(version + 1)).encode())
        for value in self._values(SyncdPatch.decode(patch)):
            if value.push_name is not None and value.push_name.name:
                self.push_name = value.push_name.name
        return True

    def version(self, collection: str) -> int:
        """Return the newest version of a collection."""
        return len(self._patches.get(collection, []))

    def _values(self, patch: SyncdPatch) -> Iterator[SyncActionValue]:
        """Yield what a patch sets. Values that were not made with the key are skipped, as phones do."""
        keys = _Keys.derive(self._secret)
        for mutation in patch.mutations:
            record = mutation.record or SyncdRecord()
            blob = record.value.blob if record.value else None
            if mutation.operation == 0 and blob and record.key_id == KeyId(self._key_id):
                sealed, value_mac = blob[:-32], blob[-32:]
                if hmac.compare_digest(self._value_mac(keys, sealed), value_mac):
                    plain = decrypt_cbc(keys.value_encryption, sealed[:16], sealed[16:])
                    yield SyncActionData.decode(plain).value or SyncActionValue()

    def _value_mac(self, keys: _Keys, sealed: bytes) -> bytes:
        """Return the MAC of the encrypted value of a mutation that sets."""
        length = (len(self._key_id) + 1).to_bytes(8, "big")
        return hmac.digest(keys.value_mac, _SET + self._key_id + sealed + length, hashlib.sha512)[:32]

    def _push_name_patch(self, push_name: str) -> SyncdPatch:
        keys, version = _Keys.derive(self._secret), 1
        index = json.dumps(["setting_pushName"], separators=(",", ":")).encode()
        value = SyncActionValue(self._made_at, PushNameSetting(push_name))
        plain = SyncActionData(index, value, b"", version).encode()
        blob = _encrypt(keys.value_encryption, plain)
        value_mac = self._value_mac(keys, blob)
        state = _add(bytes(_LANES.size), value_mac)
        name = PUSH_NAME_COLLECTION.encode()
        snapshot_mac = hmac_sha256(keys.snapshot_mac, state + version.to_bytes(8, "big") + name)
        patch_mac = hmac_sha256(keys.patch_mac, snapshot_mac + value_mac + version.to_bytes(8, "big") + name)
        record = SyncdRecord(Blob(hmac_sha256(keys.index, index)), Blob(blob + value_mac), KeyId(self._key_id))
        return SyncdPatch(
            SyncdVersion(version),
            [SyncdMutation(0, record)],
            snapshot_mac=snapshot_mac,
            patch_mac=patch_mac,
            key_id=KeyId(self._key_id),
            device_index=0,
        )


def _encrypt(key: bytes, plain: bytes) -> bytes:
    iv = os.urandom(16)
    return iv + encrypt_cbc(key, iv, plain)


def _add(state: bytes, value_mac: bytes) -> bytes:
    """Add a value to the hash of a collection. The sum does not depend on the order."""
    summand = hkdf(value_mac, _LANES.size, info=b"WhatsApp Patch Integrity")
    lanes = zip(_LANES.unpack(state), _LANES.unpack(summand), strict=True)
    return _LANES.pack(*((left + right) & 0xFFFF for left, right in lanes))
