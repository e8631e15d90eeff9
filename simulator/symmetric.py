"""Encrypts with AES-256 in CBC mode with PKCS#7 padding, as Signal and app state do."""

from __future__ import annotations

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_BLOCK_BITS = 128


def encrypt_cbc(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """Pad and encrypt."""
    padder, encryptor = padding.PKCS7(_BLOCK_BITS).padder(), Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()


def decrypt_cbc(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """Decrypt and remove the padding. Raise ValueError if the length or the padding is wrong."""
    unpadder, decryptor = padding.PKCS7(_BLOCK_BITS).unpadder(), Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    return unpadder.update(padded) + unpadder.finalize()
