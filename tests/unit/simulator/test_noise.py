"""The handshake, with an initiator written for the test out of the specification's steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.noise import Cipher, HandshakeError, Responder, ServerIdentity, SymmetricState
from simulator.schemas import CertificateChain, CertificateDetails, ClientFinish, ClientHello, HandshakeMessage
from simulator.signing import AgreementKey, verify


class Initiator:
    """A client in one handshake."""

    def __init__(self, root: bytes) -> None:
        self.static = AgreementKey()
        self._root = root
        self._ephemeral = AgreementKey()
        self._state = SymmetricState()

    def hello(self) -> bytes:
        self._state.mix_hash(self._ephemeral.public)
        return HandshakeMessage(client_hello=ClientHello(self._ephemeral.public)).encode()

    def finish(self, message: bytes, payload: bytes) -> bytes:
        hello = HandshakeMessage.decode(message).server_hello
        assert hello and hello.ephemeral and hello.static and hello.payload
        self._state.mix_hash(hello.ephemeral)
        self._state.mix_key(self._ephemeral.agree(hello.ephemeral))
        server_static = self._state.decrypt(hello.static)
        self._state.mix_key(self._ephemeral.agree(server_static))
        self._check(self._state.decrypt(hello.payload), server_static)
        static = self._state.encrypt(self.static.public)
        self._state.mix_key(self.static.agree(hello.ephemeral))
        finish = ClientFinish(static, self._state.encrypt(payload))
        return HandshakeMessage(client_finish=finish).encode()

    def split(self) -> tuple[Cipher, Cipher]:
        return self._state.split()

    def _check(self, certificates: bytes, server_static: bytes) -> None:
        chain = CertificateChain.decode(certificates)
        assert chain.leaf and chain.leaf.details and chain.leaf.signature
        assert chain.intermediate and chain.intermediate.details and chain.intermediate.signature
        assert verify(self._root, chain.intermediate.details, chain.intermediate.signature)
        intermediate = CertificateDetails.decode(chain.intermediate.details)
        assert verify(intermediate.key or b"", chain.leaf.details, chain.leaf.signature)
        leaf = CertificateDetails.decode(chain.leaf.details)
        assert (leaf.key, leaf.issuer_serial) == (server_static, intermediate.serial)


def test_both_sides_end_with_the_same_ciphers() -> None:
    identity = ServerIdentity()
    client, server = Initiator(identity.root.public), Responder(identity)
    established = server.finish(client.finish(server.hello(client.hello()), b"who I am"))
    assert (established.client_static, established.payload) == (client.static.public, b"who I am")
    to_server, to_client = client.split()
    for number in range(3):
        message = f"stanza {number}".encode()
        assert established.incoming.decrypt(to_server.encrypt(message)) == message
        assert to_client.decrypt(established.outgoing.encrypt(message)) == message


def test_a_repeated_frame_does_not_decrypt() -> None:
    sending, receiving = Cipher(bytes(32)), Cipher(bytes(32))
    frame = sending.encrypt(b"once")
    receiving.decrypt(frame)
    with pytest.raises(HandshakeError):
        receiving.decrypt(frame)


@given(st.binary(max_size=120))
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(HandshakeError):
        Responder(ServerIdentity()).finish(data)


@pytest.mark.parametrize("data", [b"", b"\x12\x00", b"\x12\x03\x0a\x01x", b"\xff"])
def test_a_hello_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(HandshakeError):
        Responder(ServerIdentity()).hello(data)


def test_an_unusable_key_is_refused() -> None:
    with pytest.raises(HandshakeError, match="unusable"):
        Responder(ServerIdentity()).hello(HandshakeMessage(client_hello=ClientHello(bytes(32))).encode())
