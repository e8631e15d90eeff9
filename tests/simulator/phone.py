"""A person's phone: it reads and writes messages that are really encrypted, and vouches for linked devices."""

from __future__ import annotations

import logging
import secrets
import time
import zlib
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from tests.simulator.accounts import Account, Companion, Directory
from tests.simulator.app_state import AppState
from tests.simulator.binary_xml import Node, Value, node
from tests.simulator.conversations import Conversations
from tests.simulator.jid import Jid
from tests.simulator.letters import Letter
from tests.simulator.prekeys import KeyRing, PreKeyBundle
from tests.simulator.ratchet import SignalError
from tests.simulator.router import Router
from tests.simulator.schemas import (
    Content,
    Context,
    DeviceSent,
    HistorySyncNotification,
    ProtocolMessage,
    SenderKeyDistribution,
)
from tests.simulator.signing import AgreementKey

log = logging.getLogger(__name__)

_MOST_MESSAGES = 20_000
_HISTORY_SYNC, _KEY_SHARE = 5, 6
_MOST_RETRIES = 5


@dataclass
class InboxMessage:
    """A message as the phone shows it."""

    id: str
    sender: str  #: phone number
    sender_device: int
    to: str  #: phone number; differs from the phone's own for messages that its linked devices wrote
    text: str
    timestamp: float
    #: how many times this id was decrypted here: 1 unless somebody repeated it
    times: int = 1


@dataclass
class Receipt:
    """What a device said about a message that this phone wrote."""

    device: str
    type: str  #: "delivered", "inactive", "read", "retry", …
    timestamp: float


@dataclass
class SentMessage:
    """A message that this phone wrote; kept so that it can be written again for a device that could not read it."""

    id: str
    to: str
    text: str
    timestamp: float
    receipts: list[Receipt] = field(default_factory=list)
    content: Content = field(default_factory=Content, repr=False)


class Phone:
    """Device 0 of an account. Peers of its Signal sessions are (account, device number)."""

    number = 0

    def __init__(self, account: Account, directory: Directory, router: Router) -> None:
        self._account = account
        self._directory = directory
        self._router = router
        self.keys = KeyRing()
        self.app_state = AppState(account.push_name)
        self.sends_read_receipts = False
        self.unreadable = 0
        self._conversations: Conversations[tuple[str, int]] = Conversations(self.keys, self._fetch_bundle)
        self._inbox: deque[InboxMessage] = deque(maxlen=_MOST_MESSAGES)
        self._inbox_by_id: OrderedDict[tuple[str, str], InboxMessage] = OrderedDict()
        self._sent: OrderedDict[str, SentMessage] = OrderedDict()

    @property
    def account(self) -> Account:
        return self._account

    @property
    def identity(self) -> AgreementKey:
        """The account's Signal identity."""
        return self.keys.identity

    @property
    def inbox(self) -> list[InboxMessage]:
        """Messages that arrived here, oldest first."""
        return list(self._inbox)

    @property
    def sent(self) -> list[SentMessage]:
        """Messages that were written here, oldest first."""
        return list(self._sent.values())

    def bundle(self) -> PreKeyBundle:
        return self.keys.bundle()

    # --- writing

    def write(self, recipient: Account, text: str) -> SentMessage:
        """Write a text to somebody: to each of their devices, and to the linked devices of this account."""
        message_id = "3EB0" + secrets.token_hex(9).upper()
        # Phones give every message a secret, by which later ones can refer to it; who reads it writes that down, too.
        content = Content(conversation=text, context=Context(secrets.token_bytes(32)))
        message = self._keep_sent(SentMessage(message_id, recipient.pn, text, time.time(), content=content))
        self._send(recipient.lid_jid(), message_id, self._parts(recipient, content))
        return message

    def post(self, recipient: Account, letter: Letter) -> SentMessage:
        """Send a message of any kind, to the same devices."""
        message_id = "3EB0" + secrets.token_hex(9).upper()
        content = letter.message
        message = self._keep_sent(SentMessage(message_id, recipient.pn, "", time.time(), content=content))
        parts = [letter.sealed(part) for part in self._parts(recipient, content)]
        self._send(recipient.lid_jid(), message_id, parts, **letter.attributes)
        return message

    def _keep_sent(self, message: SentMessage) -> SentMessage:
        self._sent[message.id] = message
        if len(self._sent) > _MOST_MESSAGES:
            self._sent.popitem(last=False)
        return message

    def _parts(self, recipient: Account, content: Content) -> list[Node]:
        copy = Content(device_sent=DeviceSent(str(recipient.lid_jid()), content))
        parts = [self._encrypted_for(recipient, number, content) for number in list(recipient.devices)]
        if recipient is not self.account:
            parts += [self._encrypted_for(self.account, device.number, copy) for device in self.account.companions]
        return [part for part in parts if part is not None]

    def repeat(self, message_id: str) -> bool:
        """Send a message once more to the devices of its recipient, encrypted anew; False if there is none."""
        message = self._sent.get(message_id)
        recipient = self._directory.by_pn(message.to) if message is not None else None
        if message is None or recipient is None:
            return False
        parts = [self._encrypted_for(recipient, number, message.content) for number in list(recipient.devices)]
        self._send(recipient.lid_jid(), message_id, [part for part in parts if part is not None])
        return True

    def write_to_group(self, group: str, member: Account, text: str) -> str:
        """Write in a group for the first time: its key and the text, apart from each other, in one message.

        Nobody needs the key: the text is encrypted for each device of the member as the key is.
        """
        message_id = "3EB0" + secrets.token_hex(9).upper()
        key = Content(sender_key=SenderKeyDistribution(group, secrets.token_bytes(32)))
        for device in member.companions:
            parts = [self._encrypted_for(member, device.number, part) for part in (key, Content(conversation=text))]
            about: dict[str, str | Jid | int | None] = {
                "from": Jid.parse(group),
                "participant": self.account.lid_jid(),
                "participant_pn": self.account.pn_jid(),
                "id": message_id,
                "type": "text",
                "t": int(time.time()),
                "notify": self.account.push_name,
                "addressing_mode": "lid",
            }
            encrypted = [enc for part in parts if part is not None for enc in part.find_all("enc")]
            device.receive(node("message", about, *encrypted))
        return message_id

    def share_app_state(self, companion: Companion) -> None:
        """Give a newly linked device the key of the app state."""
        content = Content(protocol_message=ProtocolMessage(_KEY_SHARE, app_state_key_share=self.app_state.key_share()))
        part = self._encrypted_for(self.account, companion.number, content)
        if part is not None:
            self._send(companion.lid, "3EB0" + secrets.token_hex(9).upper(), [part], category="peer")

    def share_history(self, companion: Companion, history: bytes) -> None:
        """Give a linked device a piece of history, inside a message: a small one need not be fetched."""
        notification = HistorySyncNotification(inline=zlib.compress(history))
        content = Content(protocol_message=ProtocolMessage(_HISTORY_SYNC, history_sync=notification))
        part = self._encrypted_for(self.account, companion.number, content)
        if part is not None:
            self._send(companion.lid, "3EB0" + secrets.token_hex(9).upper(), [part], category="peer")

    def mark_read(self, message_id: str) -> bool:
        """Tell the sender of a message that it was read; False if there is no such message."""
        message = next((message for message in self._inbox if message.id == message_id), None)
        if message is None:
            return False
        sender = self._directory.by_pn(message.sender)
        if sender is not None:
            self._acknowledge(sender.lid_jid(message.sender_device), message_id, "read")
        return True

    def _send(self, to: Jid, message_id: str, parts: list[Node], **attrs: str) -> None:
        about: dict[str, Value] = {"to": to, "id": message_id, "type": "text", **attrs}
        stanza = node("message", about, node("participants", {}, *parts))
        self._router.message(self, stanza)

    def _encrypted_for(self, account: Account, number: int, content: Content) -> Node | None:
        if account is self.account and number == self.number:
            return None
        encrypted = self._conversations.encrypt((account.pn, number), content)
        if encrypted is None:
            return None
        kind, ciphertext = encrypted
        return node("to", {"jid": account.lid_jid(number)}, node("enc", {"v": 2, "type": kind}, ciphertext))

    def _fetch_bundle(self, peer: tuple[str, int]) -> PreKeyBundle | None:
        account = self._directory.by_pn(peer[0])
        device = account.devices.get(peer[1]) if account else None
        return device.bundle() if device else None

    # --- reading

    def receive(self, stanza: Node) -> None:
        """Take a stanza from the server."""
        if stanza.tag == "message":
            self._read_message(stanza)
        elif stanza.tag == "receipt":
            self._read_receipt(stanza)

    def _read_message(self, stanza: Node) -> None:
        source = stanza.jid("from")
        sender = self._directory.account(source)
        if source is None or sender is None:
            return
        for encrypted in stanza.find_all("enc"):
            try:
                content = self._conversations.decrypt(
                    (sender.pn, source.device), encrypted.text("type"), encrypted.data
                )
            except SignalError as error:
                log.info("%s cannot read message %s from %s: %s", self.account.pn, stanza.text("id"), source, error)
                self.unreadable += 1
                self._ask_again(source, stanza, encrypted)
                continue
            self._keep(sender, source, stanza, content)
            self._acknowledge(source, stanza.text("id"), None)
            if self.sends_read_receipts and sender is not self.account:
                self._acknowledge(source, stanza.text("id"), "read")

    def _keep(self, sender: Account, source: Jid, stanza: Node, content: Content) -> None:
        to = self.account.pn
        if content.device_sent is not None:
            destination = self._directory.account(Jid.parse(content.device_sent.destination or ""))
            to = destination.pn if destination else ""
            content = content.device_sent.message or Content()
        if content.text is None:
            return
        key = (sender.pn, stanza.text("id"))
        known = self._inbox_by_id.get(key)
        if known is not None:
            known.times += 1
            return
        message = InboxMessage(key[1], sender.pn, source.device, to, content.text, time.time())
        self._inbox.append(message)
        self._inbox_by_id[key] = message
        if len(self._inbox_by_id) > _MOST_MESSAGES:
            self._inbox_by_id.popitem(last=False)

    def _acknowledge(self, sender: Jid, message_id: str, kind: str | None) -> None:
        self._router.receipt(self, node("receipt", {"to": sender, "id": message_id, "type": kind}))

    def _ask_again(self, sender: Jid, stanza: Node, encrypted: Node) -> None:
        count = int(encrypted.text("count") or 0) + 1
        if count > _MOST_RETRIES:
            return
        bundle = self.bundle()
        message_id = stanza.text("id")
        retry = node("retry", {"count": count, "id": message_id, "t": stanza.text("t"), "v": 1})
        registration = node("registration", {}, bundle.registration_id.to_bytes(4, "big"))
        self._router.receipt(
            self, node("receipt", {"to": sender, "id": message_id, "type": "retry"}, retry, registration)
        )

    def _read_receipt(self, receipt: Node) -> None:
        source = receipt.jid("from")
        account = self._directory.account(source)
        if source is None or account is None:
            return
        kind = receipt.text("type") or "delivered"
        listed = receipt.find("list")
        items = [item.text("id") for item in listed.children] if listed else []
        for message_id in [receipt.text("id"), *items]:
            message = self._sent.get(message_id)
            if message is None:
                continue
            message.receipts.append(Receipt(str(account.pn_jid(source.device)), kind, time.time()))
            if kind == "retry":
                self._write_again(message, account, source, receipt.find("retry"))

    def _write_again(self, message: SentMessage, account: Account, device: Jid, retry: Node | None) -> None:
        """A device could not read a message: begin a new session with it and send the message to it alone."""
        count = int(retry.text("count") or 1) if retry else 1
        peer = (account.pn, device.device)
        if count > _MOST_RETRIES or not self._conversations.begin_anew(peer):
            return
        content = message.content
        if account is self.account:
            recipient = self._directory.by_pn(message.to)
            content = Content(device_sent=DeviceSent(str(recipient.lid_jid()) if recipient else "", content))
        encrypted = self._conversations.encrypt(peer, content)
        if encrypted is not None:
            kind, ciphertext = encrypted
            part = node("enc", {"v": 2, "type": kind, "count": count}, ciphertext)
            self._router.message(self, node("message", {"to": device, "id": message.id, "type": "text"}, part))
