"""Files as WhatsApp stores them: encrypted for a test, and what a sender says of them."""

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.domain.media import MediaKind, StoredMedia

KEY = bytes(range(32))
INFO = {
    MediaKind.IMAGE: b"WhatsApp Image Keys",
    MediaKind.VIDEO: b"WhatsApp Video Keys",
    MediaKind.AUDIO: b"WhatsApp Audio Keys",
    MediaKind.DOCUMENT: b"WhatsApp Document Keys",
    MediaKind.STICKER: b"WhatsApp Image Keys",
}


def stored(
    data: bytes, kind: MediaKind = MediaKind.DOCUMENT, path: str = "/v/t62/1.enc?oh=1"
) -> tuple[bytes, StoredMedia]:
    """Return the body at WhatsApp of a file, and the file as its sender describes it."""
    keys = HKDF(SHA256(), 112, None, INFO[kind]).derive(KEY)
    padding = 16 - len(data) % 16
    cipher = Cipher(algorithms.AES256(keys[16:48]), modes.CBC(keys[:16])).encryptor()
    encrypted = cipher.update(data + bytes([padding]) * padding) + cipher.finalize()
    body = encrypted + hmac.new(keys[48:80], keys[:16] + encrypted, hashlib.sha256).digest()[:10]
    hashes = hashlib.sha256(body).digest(), hashlib.sha256(data).digest()
    return body, StoredMedia(kind, path, KEY, *hashes, len(data), "application/pdf")
