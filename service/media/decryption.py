"""Decrypts a file of WhatsApp as a stream, and checks it. Pure.

The stored body is the ciphertext (AES-256-CBC, PKCS #7) and ten bytes of HMAC-SHA256 over IV and ciphertext. The keys
come from the media key by HKDF-SHA256. `encrypted_sha256` is over the body, `sha256` over the file.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.domain.errors import DataLoss
from service.domain.media import MediaKind, StoredMedia

MAC_BYTES = 10
_BLOCK = 16
_HELD_BACK = _BLOCK + MAC_BYTES
_INFO = {
    MediaKind.IMAGE: b"WhatsApp Image Keys",
    MediaKind.STICKER: b"WhatsApp Image Keys",
    MediaKind.VIDEO: b"WhatsApp Video Keys",
    MediaKind.AUDIO: b"WhatsApp Audio Keys",
    MediaKind.DOCUMENT: b"WhatsApp Document Keys",
}


def encrypted_size(size: int) -> int:
    """Return the bytes of the stored body of a file of `size` bytes."""
    return (size // _BLOCK + 1) * _BLOCK + MAC_BYTES


class DecryptingStream:
    """Takes the stored body in pieces of any size, and returns the file.

    The last block is held back until all checks have passed, so that a damaged file is never complete.
    """

    def __init__(self, media: StoredMedia) -> None:
        keys = HKDF(SHA256(), 112, None, _INFO[media.kind]).derive(media.media_key)
        iv, cipher_key, mac_key = keys[:16], keys[16:48], keys[48:80]
        self._media = media
        self._cipher = Cipher(algorithms.AES256(cipher_key), modes.CBC(iv)).decryptor()
        self._mac = hmac.new(mac_key, iv, hashlib.sha256)
        self._encrypted_hash, self._hash = hashlib.sha256(), hashlib.sha256()
        self._size = 0
        self._pending = bytearray()

    def update(self, data: bytes) -> bytes:
        """Take a piece of the body; return the next bytes of the file, perhaps none."""
        self._pending += data
        usable = (len(self._pending) - _HELD_BACK) // _BLOCK * _BLOCK
        if usable <= 0:
            return b""
        plain = self._decrypt(bytes(memoryview(self._pending)[:usable]))
        del self._pending[:usable]
        self._hash.update(plain)
        self._size += len(plain)
        return plain

    def finish(self) -> bytes:
        """Return the last bytes of the file. Raise DataLoss if the body is not that of the file."""
        if len(self._pending) != _HELD_BACK:
            raise damaged("its length is not that of an encrypted file")
        block, code = bytes(self._pending[:_BLOCK]), bytes(self._pending[_BLOCK:])
        last = self._decrypt(block)
        if not hmac.compare_digest(self._mac.digest()[:MAC_BYTES], code):
            raise damaged("its authentication code is wrong")
        self._encrypted_hash.update(code)
        if self._encrypted_hash.digest() != self._media.encrypted_sha256:
            raise damaged("the hash of the encrypted file is wrong")
        padding = last[-1]
        if not 1 <= padding <= _BLOCK or last[-padding:] != bytes([padding]) * padding:
            raise damaged("its padding is wrong")
        last = last[:-padding]
        self._hash.update(last)
        if self._media.sha256 and self._hash.digest() != self._media.sha256:
            raise damaged("the hash of the file is wrong")
        if self._media.size not in (None, self._size + len(last)):
            raise damaged(f"it has {self._size + len(last)} bytes, and {self._media.size} were stated")
        return last

    def _decrypt(self, data: bytes) -> bytes:
        self._mac.update(data)
        self._encrypted_hash.update(data)
        return self._cipher.update(data)


def damaged(why: str) -> DataLoss:
    """Return the error for a body that is not that of the file."""
    return DataLoss(
        f"the file at WhatsApp is damaged: {why}; discard what was received",
        reason="MEDIA_DAMAGED",
        metadata={"detail": why},
    )
