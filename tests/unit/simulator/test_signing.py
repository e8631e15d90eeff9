"""Keys that agree and sign."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulator.derivation import hkdf
from simulator.signing import AgreementKey, SigningKey, verify

_seeds = st.binary(min_size=32, max_size=32)


@given(_seeds, st.binary(max_size=200))
def test_what_is_signed_verifies(seed: bytes, message: bytes) -> None:
    key = SigningKey(seed)
    assert verify(key.public, message, key.sign(message))


@given(_seeds, st.integers(0, 511))
def test_a_changed_bit_does_not_verify(seed: bytes, bit: int) -> None:
    key = SigningKey(seed)
    signature = bytearray(key.sign(b"message"))
    signature[bit // 8] ^= 1 << bit % 8
    assert not verify(key.public, b"message", bytes(signature))


def test_another_message_or_key_does_not_verify() -> None:
    key = SigningKey()
    assert not verify(key.public, b"other", key.sign(b"message"))
    assert not verify(SigningKey().public, b"message", key.sign(b"message"))
    assert not verify(b"short", b"message", key.sign(b"message"))


def test_a_signing_key_agrees_like_any_other() -> None:
    signing, other = SigningKey(), AgreementKey()
    assert signing.agree(other.public) == other.agree(signing.public)


def test_key_derivation_follows_rfc_5869() -> None:
    secret, salt, info = b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA))
    expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    assert hkdf(secret, 42, salt=salt, info=info).hex() == expected
    assert hkdf(secret, 42).hex().startswith("8da4e775a563c18f715f802a063c5a31"), "no salt is 32 zero bytes"
