"""Defines the protocol messages of the simulator, with only the fields that it needs."""

# ruff: noqa: RUF009  (number() and repeated() make dataclass fields; they are not values)

from __future__ import annotations

from dataclasses import dataclass

from simulator.wire_format import Record, number, repeated

#: Types of a protocol message.
HISTORY_SYNC, APP_STATE_KEY_SHARE, MESSAGE_EDIT = 5, 6, 14

# --- Noise handshake and its certificates


@dataclass
class ClientHello(Record):
    ephemeral: bytes | None = number(1)


@dataclass
class ServerHello(Record):
    ephemeral: bytes | None = number(1)
    static: bytes | None = number(2)
    payload: bytes | None = number(3)


@dataclass
class ClientFinish(Record):
    static: bytes | None = number(1)
    payload: bytes | None = number(2)


@dataclass
class HandshakeMessage(Record):
    client_hello: ClientHello | None = number(2)
    server_hello: ServerHello | None = number(3)
    client_finish: ClientFinish | None = number(4)


@dataclass
class CertificateDetails(Record):
    serial: int | None = number(1)
    issuer_serial: int | None = number(2)
    key: bytes | None = number(3)
    not_before: int | None = number(4)
    not_after: int | None = number(5)


@dataclass
class Certificate(Record):
    details: bytes | None = number(1)
    signature: bytes | None = number(2)


@dataclass
class CertificateChain(Record):
    leaf: Certificate | None = number(1)
    intermediate: Certificate | None = number(2)


# --- The client's payload at the end of the handshake


@dataclass
class DevicePairingData(Record):
    registration_id: bytes | None = number(1)
    key_type: bytes | None = number(2)
    identity: bytes | None = number(3)
    signed_prekey_id: bytes | None = number(4)
    signed_prekey: bytes | None = number(5)
    signed_prekey_signature: bytes | None = number(6)
    build_hash: bytes | None = number(7)
    device_props: bytes | None = number(8)


@dataclass
class ClientPayload(Record):
    username: int | None = number(1)
    passive: int | None = number(3)
    device: int | None = number(18)
    device_pairing_data: DevicePairingData | None = number(19)


# --- Advertisement of a companion device, signed by the phone and by the device


@dataclass
class DeviceIdentity(Record):
    raw_id: int | None = number(1)
    timestamp: int | None = number(2)
    key_index: int | None = number(3)
    account_type: int | None = number(4)
    device_type: int | None = number(5)


@dataclass
class SignedDeviceIdentity(Record):
    details: bytes | None = number(1)
    account_signature_key: bytes | None = number(2)
    account_signature: bytes | None = number(3)
    device_signature: bytes | None = number(4)


@dataclass
class SignedDeviceIdentityHmac(Record):
    details: bytes | None = number(1)
    hmac: bytes | None = number(2)


# --- Signal


@dataclass
class SignalMessage(Record):
    ratchet_key: bytes | None = number(1)
    counter: int | None = number(2)
    previous_counter: int | None = number(3)
    ciphertext: bytes | None = number(4)


@dataclass
class PreKeySignalMessage(Record):
    prekey_id: int | None = number(1)
    base_key: bytes | None = number(2)
    identity_key: bytes | None = number(3)
    message: bytes | None = number(4)
    registration_id: int | None = number(5)
    signed_prekey_id: int | None = number(6)


@dataclass
class SenderKeyMessage(Record):
    id: int | None = number(1)
    iteration: int | None = number(2)
    ciphertext: bytes | None = number(3)


@dataclass
class SenderKeyAnnouncement(Record):
    id: int | None = number(1)
    iteration: int | None = number(2)
    chain_key: bytes | None = number(3)
    signing_key: bytes | None = number(4)


# --- The content of an encrypted message (waE2E)


@dataclass
class ExtendedText(Record):
    text: str | None = number(1)


@dataclass
class AppStateKeyId(Record):
    key_id: bytes | None = number(1)


@dataclass
class AppStateKeyFingerprint(Record):
    raw_id: int | None = number(1)
    current_index: int | None = number(2)
    device_indexes: list[int] = repeated(3)


@dataclass
class AppStateKeyData(Record):
    key_data: bytes | None = number(1)
    fingerprint: AppStateKeyFingerprint | None = number(2)
    timestamp: int | None = number(3)


@dataclass
class AppStateKey(Record):
    key_id: AppStateKeyId | None = number(1)
    key_data: AppStateKeyData | None = number(2)


@dataclass
class AppStateKeyShare(Record):
    keys: list[AppStateKey] = repeated(1)


@dataclass
class HistorySyncNotification(Record):
    inline: bytes | None = number(11)


@dataclass
class MessageKey(Record):
    """A reference to a message."""

    chat: str | None = number(1)
    from_me: int | None = number(2)
    id: str | None = number(3)
    participant: str | None = number(4)


@dataclass
class ProtocolMessage(Record):
    key: MessageKey | None = number(1)
    type: int | None = number(2)
    history_sync: HistorySyncNotification | None = number(6)
    app_state_key_share: AppStateKeyShare | None = number(7)
    edited: Content | None = number(14)
    timestamp_ms: int | None = number(15)


@dataclass
class DeviceSent(Record):
    destination: str | None = number(1)
    message: Content | None = number(2)


@dataclass
class Context(Record):
    """The context of a message."""

    secret: bytes | None = number(3)


@dataclass
class SenderKeyDistribution(Record):
    """A sender key that is announced to a device of a group."""

    group_id: str | None = number(1)
    announcement: bytes | None = number(2)


@dataclass
class Wrapped(Record):
    """A message inside another."""

    message: Content | None = number(1)


@dataclass
class Content(Record):
    """A decrypted message: a text in one of its two forms, or a message between devices of one account."""

    conversation: str | None = number(1)
    sender_key: SenderKeyDistribution | None = number(2)
    extended_text: ExtendedText | None = number(6)
    protocol_message: ProtocolMessage | None = number(12)
    device_sent: DeviceSent | None = number(31)
    context: Context | None = number(35)
    edited: Wrapped | None = number(58)

    @property
    def text(self) -> str | None:
        """The text in either form; None for any other content."""
        return self.extended_text.text if self.extended_text else self.conversation

    @property
    def edit(self) -> ProtocolMessage | None:
        """The edit of another message, wrapped or not; None for any other content."""
        protocol = (self.edited.message or Content()).protocol_message if self.edited else self.protocol_message
        return protocol if protocol is not None and protocol.type == MESSAGE_EDIT else None


class Composed(Content):
    """A message that is already serialised. Its bytes are encrypted unchanged."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def encode(self) -> bytes:
        """Return the bytes."""
        return self._data


# --- App state


@dataclass
class PushNameSetting(Record):
    name: str | None = number(1)


@dataclass
class SyncActionValue(Record):
    timestamp: int | None = number(1)
    push_name: PushNameSetting | None = number(7)


@dataclass
class SyncActionData(Record):
    index: bytes | None = number(1)
    value: SyncActionValue | None = number(2)
    padding: bytes | None = number(3)
    version: int | None = number(4)


@dataclass
class Blob(Record):
    blob: bytes | None = number(1)


@dataclass
class KeyId(Record):
    id: bytes | None = number(1)


@dataclass
class SyncdRecord(Record):
    index: Blob | None = number(1)
    value: Blob | None = number(2)
    key_id: KeyId | None = number(3)


@dataclass
class SyncdMutation(Record):
    operation: int | None = number(1)
    record: SyncdRecord | None = number(2)


@dataclass
class SyncdVersion(Record):
    version: int | None = number(1)


@dataclass
class SyncdPatch(Record):
    version: SyncdVersion | None = number(1)
    mutations: list[SyncdMutation] = repeated(2)
    snapshot_mac: bytes | None = number(4)
    patch_mac: bytes | None = number(5)
    key_id: KeyId | None = number(6)
    device_index: int | None = number(8)
