"""Derives the mutual TLS credentials of nodes from one shared secret.

Every node derives the same certificate authority key from ZAP_NODE_SECRET (HKDF-SHA256, then P-256) and signs a
certificate for a fresh key with it. A node accepts only certificates signed by that authority. No files need to be
distributed, the secret never travels, and learning the secret later does not decrypt recorded traffic.
"""

import datetime
from dataclasses import dataclass

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME = "zap-node"
"""Name in every node's certificate. It stands for the role of a node, not for an address."""

_PURPOSE = b"zap.v1 authority of nodes"
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_CLOCK_SKEW = datetime.timedelta(days=2)
"""Tolerated difference between the clocks of two hosts."""
_VALIDITY = datetime.timedelta(days=3650)
"""Lifetime of a certificate. A node may run for years without a restart."""


@dataclass(frozen=True)
class NodeCertificate:
    """The key and certificate of one node and the authority's certificate, in PEM."""

    key: bytes
    certificate: bytes
    authority: bytes

    @classmethod
    def signed_by(cls, secret: str) -> "NodeCertificate":
        """Return a new certificate that nodes with the same secret accept."""
        authority = _authority_key(secret)
        own = ec.generate_private_key(ec.SECP256R1())
        issuer = _name("zap-service nodes")
        root = (
            _builder(issuer, issuer, authority.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(authority, hashes.SHA256())
        )
        leaf = (
            _builder(_name(NAME), issuer, own.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .sign(authority, hashes.SHA256())
        )
        key = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return cls(key, leaf.public_bytes(Encoding.PEM), root.public_bytes(Encoding.PEM))

    def for_server(self) -> grpc.ServerCredentials:
        """Return server credentials that require a client certificate of the authority."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], root_certificates=self.authority, require_client_auth=True
        )

    def for_calls(self) -> grpc.ChannelCredentials:
        """Return channel credentials that require a server certificate of the authority."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


def _authority_key(secret: str) -> ec.EllipticCurvePrivateKey:
    # Derive 16 bytes more than a key has, so that the remainder below is almost uniformly distributed.
    seed = HKDF(hashes.SHA256(), 48, salt=None, info=_PURPOSE).derive(secret.encode())
    return ec.derive_private_key(int.from_bytes(seed) % (_P256_ORDER - 1) + 1, ec.SECP256R1())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _VALIDITY)
    )
