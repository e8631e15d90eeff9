"""How nodes prove to each other that they belong together: TLS with certificates on both sides, out of one secret.

From ZAP_NODE_SECRET every node derives the same key of a certificate authority (HKDF-SHA256, then P-256), signs a
certificate for a key of its own with it, and accepts nobody whose certificate that authority has not signed. So there
are no files to distribute, the secret never travels, and what was recorded cannot be read by whoever learns it later.
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
"""What every node's certificate is for: who may own sessions, whatever its address."""

_PURPOSE = b"zap.v1 authority of nodes"
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256."""
#: Clocks of two hosts may differ, and a node may run for years.
_BEFORE, _BEHIND = datetime.timedelta(days=2), datetime.timedelta(days=3650)


@dataclass(frozen=True)
class NodeCertificate:
    """A node's own, in PEM."""

    key: bytes
    certificate: bytes
    authority: bytes

    @classmethod
    def signed_by(cls, secret: str) -> "NodeCertificate":
        """A new one, that nodes with the same secret accept."""
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
        """Serve nobody who does not show such a certificate."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], root_certificates=self.authority, require_client_auth=True
        )

    def for_calls(self) -> grpc.ChannelCredentials:
        """Call nobody who does not."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


def _authority_key(secret: str) -> ec.EllipticCurvePrivateKey:
    # 16 bytes more than the key has: what is left of a larger number by a division is as good as evenly spread.
    seed = HKDF(hashes.SHA256(), 48, salt=None, info=_PURPOSE).derive(secret.encode())
    return ec.derive_private_key(int.from_bytes(seed) % (_ORDER - 1) + 1, ec.SECP256R1())


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
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + _BEHIND)
    )
