"""Links devices: issues QR codes, signs as the phone, and checks the client's answer."""

from __future__ import annotations

import base64
import logging
import os
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum

from simulator.accounts import Account, Companion, Directory
from simulator.binary_xml import Node, node
from simulator.bookkeeping import Ledger
from simulator.connection import Connection
from simulator.derivation import hmac_sha256
from simulator.faults import Faults
from simulator.gates import Step
from simulator.jid import SERVER
from simulator.passkey import prologue_request
from simulator.phone import Phone
from simulator.prekeys import PreKey, Shelf
from simulator.schemas import DeviceIdentity, DevicePairingData, SignedDeviceIdentity, SignedDeviceIdentityHmac
from simulator.signing import verify
from simulator.transport import ConnectionEnded

log = logging.getLogger(__name__)

_ACCOUNT_SIGNATURE = b"\x06\x00"
_DEVICE_SIGNATURE = b"\x06\x01"


class Flaw(StrEnum):
    """The faults that a test can add to a scan."""

    NONE = "none"
    BAD_HMAC = "bad-hmac"  #: the phone's message does not verify with the QR code's secret
    PASSKEY = "passkey"  #: the account asks for a passkey instead of linking
    #: the server makes the client show a new code with a new secret; only a scan of that one links it
    REFRESH = "refresh"
    REFUSED_LOGIN = "refused-login"  #: the client is linked from its own view, but its first login fails with 401


class Outcome(StrEnum):
    """How a linking attempt ended."""

    PAIRED = "paired"
    REFUSED_BY_CLIENT = "refused-by-client"
    PASSKEY_REQUESTED = "passkey-requested"
    CODE_REFRESHED = "code-refreshed"
    CLIENT_GONE = "client-gone"
    WRONG_CODE = "wrong-code"
    BAD_SIGNATURE = "bad-signature"


@dataclass(frozen=True)
class LinkResult:
    """How a linking attempt ended, and the new device if there is one."""

    outcome: Outcome
    detail: str = ""
    companion: Companion | None = None


class StaleQr(LookupError):
    """No client shows this QR code, or no longer."""


@dataclass(frozen=True)
class QrText:
    """The content of a QR code."""

    ref: str
    noise_public: bytes
    identity: bytes
    adv_secret: bytes

    @classmethod
    def parse(cls, text: str) -> QrText:
        """Parse a QR code's text, with or without the URL in front."""
        parts = text.rpartition("#")[2].split(",")
        if len(parts) < 4:
            raise ValueError("a QR text has at least four fields separated by commas")
        try:
            keys = [base64.b64decode(part, validate=True) for part in parts[1:4]]
        except ValueError as error:
            raise ValueError(f"a QR text's second to fourth fields are base64: {error}") from error
        if any(len(key) != 32 for key in keys):
            raise ValueError("a QR text's second to fourth fields are 32 bytes each")
        return cls(parts[0], *keys)


class Candidate:
    """A client that is connected and not linked yet."""

    def __init__(self, connection: Connection, data: DevicePairingData) -> None:
        self.connection = connection
        self.data = data
        self.refs: list[str] = []

    @property
    def identity(self) -> bytes:
        """The client's Signal identity, as the client states it."""
        return self.data.identity or b""

    def shelf(self) -> Shelf:
        """The prekeys that the client sent with its payload."""
        signed = PreKey(
            int.from_bytes(self.data.signed_prekey_id or b"", "big"),
            self.data.signed_prekey or b"",
            self.data.signed_prekey_signature or b"",
        )
        return Shelf(int.from_bytes(self.data.registration_id or b"", "big"), self.identity, signed)


class Linking:
    """Issues QR codes and links devices to accounts."""

    def __init__(self, directory: Directory, ledger: Ledger, faults: Faults, ref_count: int) -> None:
        self._directory = directory
        self._ledger = ledger
        self._faults = faults
        self._by_ref: dict[str, Candidate] = {}
        self.ref_count = ref_count

    def welcome(self, candidate: Candidate) -> None:
        """Send a client the codes that it may show one after the other."""
        self._ledger.pairing.candidates += 1
        candidate.refs = ["2@" + base64.b64encode(os.urandom(90)).decode() for _ in range(self.ref_count)]
        self._ledger.pairing.qr_refs += len(candidate.refs)
        self._by_ref.update(dict.fromkeys(candidate.refs, candidate))
        refs = [node("ref", {}, ref.encode()) for ref in candidate.refs]
        candidate.connection.request("set", "md", node("pair-device", {}, *refs))

    def farewell(self, candidate: Candidate) -> None:
        """Remove the codes of a client that has disconnected."""
        for ref in candidate.refs:
            self._by_ref.pop(ref, None)

    async def scan(self, phone: Phone, qr: QrText, flaw: Flaw = Flaw.NONE) -> LinkResult:
        """Scan a QR code with a phone: link the client that shows it to the phone's account."""
        candidate = self._by_ref.get(qr.ref)
        if candidate is None or candidate.connection.is_over:
            raise StaleQr("no connected client shows this QR code")
        self._ledger.pairing.scans += 1
        return await self.link(phone, candidate, qr.identity, qr.adv_secret, flaw)

    async def link(
        self, phone: Phone, candidate: Candidate, identity: bytes, adv_secret: bytes, flaw: Flaw
    ) -> LinkResult:
        """Run the steps after a scan or a typed code, and count the outcome."""
        counts = self._ledger.pairing
        if flaw is Flaw.PASSKEY:
            counts.passkey_requests += 1
            candidate.connection.send(prologue_request())
            return LinkResult(Outcome.PASSKEY_REQUESTED)
        if flaw is Flaw.REFRESH:
            candidate.connection.send(_registration_refresh())
            return LinkResult(Outcome.CODE_REFRESHED)
        try:
            result = await self._exchange_signatures(phone, candidate, identity, adv_secret, flaw)
        except ConnectionEnded as error:
            result = LinkResult(Outcome.CLIENT_GONE, str(error))
        counts.paired += result.outcome is Outcome.PAIRED
        counts.failures += result.outcome is not Outcome.PAIRED
        return result

    async def _exchange_signatures(
        self, phone: Phone, candidate: Candidate, identity: bytes, adv_secret: bytes, flaw: Flaw
    ) -> LinkResult:
        account = phone.account
        number = self._directory.reserve_number(account)
        details = DeviceIdentity(
            secrets.randbelow(2**31), int(time.time()), number, account_type=0, device_type=0
        ).encode()
        signed = SignedDeviceIdentity(
            details, phone.identity.public, phone.identity.sign(_ACCOUNT_SIGNATURE + details + identity)
        ).encode()
        mac = hmac_sha256(bytes(32) if flaw is Flaw.BAD_HMAC else adv_secret, signed)
        await self._faults.gates.passed(Step.PAIR_SUCCESS)
        answer = await candidate.connection.request(
            "set", "md", _pair_success(account, number, SignedDeviceIdentityHmac(signed, mac))
        )
        if answer.text("type") == "error":
            error = answer.find("error")
            return LinkResult(Outcome.REFUSED_BY_CLIENT, error.text("text") if error else "")
        if not _is_signed_by_device(answer, details, identity, phone.identity.public):
            return LinkResult(Outcome.BAD_SIGNATURE)
        companion = self._directory.link(account, number, candidate.connection.client_static, candidate.shelf())
        if flaw is Flaw.REFUSED_LOGIN:
            self._directory.unlink(companion, "refused at its first login")
        await self._faults.gates.passed(Step.RESTART)
        candidate.connection.end(node("stream:error", {"code": 515}))
        return LinkResult(Outcome.PAIRED, companion=companion)


def _registration_refresh() -> Node:
    """Return the answer that invalidates the displayed code's secret, frequent at WhatsApp since the summer of 2026."""
    return node(
        "notification",
        {"from": SERVER, "type": "companion_reg_refresh", "id": secrets.token_hex(8), "t": int(time.time())},
        node("companion_reg_refresh"),
    )


def _pair_success(account: Account, number: int, container: SignedDeviceIdentityHmac) -> Node:
    return node(
        "pair-success",
        {},
        node("device-identity", {}, container.encode()),
        node("platform", {"name": "android"}),
        node("device", {"jid": account.pn_jid(number), "lid": account.lid_jid(number)}),
    )


def _is_signed_by_device(answer: Node, details: bytes, identity: bytes, account_key: bytes) -> bool:
    sign = answer.find("pair-device-sign")
    advertised = sign.find("device-identity") if sign else None
    if advertised is None:
        return False
    signature = SignedDeviceIdentity.decode(advertised.data).device_signature or b""
    return verify(identity, _DEVICE_SIGNATURE + details + identity + account_key, signature)
