"""Links devices by a code that is typed into the phone instead of a scanned QR code."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from simulator.binary_xml import Node, node
from simulator.bookkeeping import Ledger
from simulator.connection import Connection
from simulator.derivation import hkdf
from simulator.jid import SERVER
from simulator.linking import Candidate, Flaw, Linking, LinkResult, Outcome
from simulator.phone import Phone
from simulator.signing import AgreementKey
from simulator.transport import ConnectionEnded

_KEY_ITERATIONS = 131_072
_WRAPPED_SIZE = 80  # salt 32, iv 16, key 32


@dataclass
class CodeRequest:
    """A client that shows a code for this phone number."""

    candidate: Candidate
    ref: bytes
    wrapped_ephemeral: bytes


@dataclass
class _Typed:
    """A typed code for which the client's last message is pending."""

    phone: Phone
    candidate: Candidate
    ephemeral: AgreementKey
    client_ephemeral: bytes


class NoCodeRequested(LookupError):
    """No connected client has requested a code for this phone number."""


class CodeLinking:
    """Runs the three steps: the client requests a code, the phone types it, the client sends its keys."""

    def __init__(self, linking: Linking, ledger: Ledger) -> None:
        self._linking = linking
        self._ledger = ledger
        self._requests: dict[str, CodeRequest] = {}

    def farewell(self, candidate: Candidate) -> None:
        """Remove the requests of a client that has disconnected."""
        gone = [pn for pn, request in self._requests.items() if request.candidate is candidate]
        for pn in gone:
            del self._requests[pn]

    def hello(self, candidate: Candidate, registration: Node) -> Node:
        """Record a client that shows a code, by the phone number of the code."""
        self._ledger.pairing.code_requests += 1
        jid = registration.jid("jid")
        wrapped = registration.find("link_code_pairing_wrapped_companion_ephemeral_pub")
        ref = secrets.token_hex(16).encode()
        if jid is not None and wrapped is not None and len(wrapped.data) == _WRAPPED_SIZE:
            self._requests[jid.user] = CodeRequest(candidate, ref, wrapped.data)
        return node("link_code_companion_reg", {"stage": "companion_hello"}, node("link_code_pairing_ref", {}, ref))

    async def type_code(self, phone: Phone, code: str, flaw: Flaw = Flaw.NONE) -> LinkResult:
        """Type a code into a phone."""
        request = self._requests.get(phone.account.pn)
        if request is None or request.candidate.connection.is_over:
            raise NoCodeRequested(f"no connected client asks for a code of {phone.account.pn}")
        self._ledger.pairing.codes_typed += 1
        secret = code.replace("-", "").upper().encode()
        typed = _Typed(phone, request.candidate, AgreementKey(), _unwrap(secret, request.wrapped_ephemeral))
        connection = request.candidate.connection
        finish = connection.expect("companion_finish")
        connection.send(_primary_hello(request.ref, _wrap(secret, typed.ephemeral.public), phone.identity.public))
        try:
            keys = _open_bundle(typed, await finish)
        except ConnectionEnded as error:
            self._ledger.pairing.failures += 1
            return LinkResult(Outcome.CLIENT_GONE, str(error))
        except (InvalidTag, ValueError):
            self._ledger.pairing.failures += 1
            return LinkResult(Outcome.WRONG_CODE)
        return await self._linking.link(phone, request.candidate, *keys, flaw)

    def finish(self, connection: Connection, registration: Node) -> None:
        """Accept the client's keys, encrypted with the secret that the code has established."""
        connection.fulfil("companion_finish", registration)


def _primary_hello(ref: bytes, wrapped: bytes, identity: bytes) -> Node:
    return node(
        "notification",
        {"from": SERVER, "type": "link_code_companion_reg", "id": secrets.token_hex(8), "t": int(time.time())},
        node(
            "link_code_companion_reg",
            {"stage": "primary_hello"},
            node("link_code_pairing_ref", {}, ref),
            node("link_code_pairing_wrapped_primary_ephemeral_pub", {}, wrapped),
            node("primary_identity_pub", {}, identity),
        ),
    )


def _open_bundle(typed: _Typed, registration: Node) -> tuple[bytes, bytes]:
    """Return the client's identity and the secret that authenticates it."""
    wrapped = registration.find("link_code_pairing_wrapped_key_bundle")
    data = wrapped.data if wrapped else b""
    salt, nonce, ciphertext = data[:32], data[32:44], data[44:]
    shared = typed.ephemeral.agree(typed.client_ephemeral)
    key = hkdf(shared, 32, salt=salt, info=b"link_code_pairing_key_bundle_encryption_key")
    bundle = AESGCM(key).decrypt(nonce, ciphertext, None)
    identity, seed = bundle[:32], bundle[64:96]
    secret = hkdf(shared + typed.phone.identity.agree(identity) + seed, 32, info=b"adv_secret")
    return identity, secret


def _cipher(secret: bytes, salt: bytes, iv: bytes) -> Cipher[modes.CTR]:
    return Cipher(algorithms.AES(hashlib.pbkdf2_hmac("sha256", secret, salt, _KEY_ITERATIONS, 32)), modes.CTR(iv))


def _wrap(secret: bytes, key: bytes) -> bytes:
    salt, iv = os.urandom(32), os.urandom(16)
    return salt + iv + _cipher(secret, salt, iv).encryptor().update(key)


def _unwrap(secret: bytes, wrapped: bytes) -> bytes:
    salt, iv, key = wrapped[:32], wrapped[32:48], wrapped[48:]
    return _cipher(secret, salt, iv).decryptor().update(key)
