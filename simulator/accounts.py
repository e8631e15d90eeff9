"""Holds the accounts, their phones and their linked devices."""

from __future__ import annotations

import enum
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from simulator.binary_xml import Attrs, Node, node
from simulator.bookkeeping import DeviceRecord, Interval, Ledger
from simulator.connection import Connection
from simulator.jid import LID_SERVER, PN_SERVER, SERVER, Jid
from simulator.offline_queue import OfflineQueue
from simulator.prekeys import PreKeyBundle, Shelf
from simulator.profiles import Profile
from simulator.stanzas import notification

_MOST_REMEMBERED_IDS = 4_096
_MOST_DEVICES = 200
#: Number of remaining one-time prekeys at which a linked device is notified; clients then upload more.
_FEW_PREKEYS = 4
#: Stanzas that a server does not queue for a device that is offline.
_EPHEMERAL = frozenset({"presence", "chatstate"})


class Device(Protocol):
    """A phone or a linked device, as the router sees it."""

    @property
    def account(self) -> Account:
        """The account of the device."""

    @property
    def number(self) -> int:
        """Number of the device within the account; the phone is 0."""

    def receive(self, stanza: Node) -> None:
        """Accept a stanza, now or when the device is online again."""

    def bundle(self) -> PreKeyBundle:
        """Return the keys for one correspondent. Each call uses up a one-time key."""


class Addressing(enum.StrEnum):
    """The address that others see on the messages of an account."""

    LID = "lid"
    """The hidden id, with the phone number as the alternative."""
    NUMBER = "number"
    """The phone number, with the hidden id as the alternative."""
    NUMBER_ALONE = "number-alone"


@dataclass(eq=False)
class Account:
    """A person: a phone number, a hidden id, a name, and devices by number."""

    pn: str
    lid: str
    push_name: str
    devices: dict[int, Device] = field(default_factory=dict)
    last_number: int = 0
    addressing: Addressing = Addressing.LID
    seconds_ahead: int = 0
    """Seconds by which the times of its messages are ahead of the clock."""
    profile: Profile = field(default_factory=Profile)

    def pn_jid(self, number: int = 0) -> Jid:
        """Return a device's address by phone number."""
        return Jid(self.pn, PN_SERVER, number)

    def lid_jid(self, number: int = 0) -> Jid:
        """Return a device's address by hidden id."""
        return Jid(self.lid, LID_SERVER, number)

    def author(self, number: int, of_address: str, of_other: str) -> Attrs:
        """Return the author attributes of a device's message. Names of the other address begin with `of_other`."""
        is_by_lid = self.addressing is Addressing.LID
        others: dict[Addressing, Attrs] = {
            Addressing.LID: {f"{of_other}_pn": self.pn_jid()},
            Addressing.NUMBER: {f"{of_other}_lid": self.lid_jid()},
            Addressing.NUMBER_ALONE: {},
        }
        return {
            of_address: self.lid_jid(number) if is_by_lid else self.pn_jid(number),
            **others[self.addressing],
            "addressing_mode": "lid" if is_by_lid else "pn",
        }

    def shows(self, setting: str, viewer: Account) -> bool:
        """Return whether another account may see what a privacy setting covers."""
        return viewer is self or self.profile.shows(setting, viewer.pn, viewer.lid)

    @property
    def companions(self) -> list[Companion]:
        """The linked devices."""
        return [device for device in self.devices.values() if isinstance(device, Companion)]


class Companion:
    """A linked device, as the server sees a neonize client."""

    def __init__(self, account: Account, number: int, noise_public: bytes, shelf: Shelf, record: DeviceRecord) -> None:
        self._account = account
        self._number = number
        self.noise_public = noise_public
        self.shelf = shelf
        self.record = record
        self.queue = OfflineQueue()
        self.connection: Connection | None = None
        self.is_activated = False
        self._message_ids: OrderedDict[str, None] = OrderedDict()
        self.addresses = frozenset({account.pn, str(self.jid), str(self.lid)})

    @property
    def account(self) -> Account:
        return self._account

    @property
    def number(self) -> int:
        return self._number

    @property
    def jid(self) -> Jid:
        """Its address by phone number."""
        return self.account.pn_jid(self.number)

    @property
    def lid(self) -> Jid:
        """Its address by hidden id."""
        return self.account.lid_jid(self.number)

    def bundle(self) -> PreKeyBundle:
        bundle = self.shelf.bundle()
        if len(self.shelf.one_time) == _FEW_PREKEYS:
            self.receive(notification("encrypt", SERVER, node("count", {"value": _FEW_PREKEYS})))
        return bundle

    def receive(self, stanza: Node) -> None:
        """Queue a stanza until the device confirms it, and send it if the device is connected."""
        if stanza.tag in _EPHEMERAL:
            self._send(stanza)
            return
        delivery = self.record.queued(stanza) if stanza.tag == "message" else None
        self.record.messages.dropped += not self.queue.add(stanza, delivery)
        if self._send(stanza) and delivery is not None:
            self.record.delivered(delivery)

    def _send(self, stanza: Node) -> bool:
        """Send a stanza if the device is connected. Return whether it is."""
        if self.connection is None or self.connection.is_over:
            return False
        self.connection.send(stanza)
        return True

    def attach(self, connection: Connection) -> Interval:
        """Record the login of a connection, which gets the stanzas from now on."""
        self.connection = connection
        return self.record.connected()

    def detach(self, connection: Connection, interval: Interval) -> None:
        """Record the end of a connection."""
        self.record.disconnected(interval)
        if self.connection is connection:
            self.connection = None

    def send_queue(self, connection: Connection) -> None:
        """Deliver the queued stanzas in order, between their announcement and their end marker."""
        self.queue.begin_connection()
        queued = list(self.queue)
        if queued:
            counts = {tag: self.queue.count(tag) for tag in ("message", "receipt", "notification")}
            preview = node("offline_preview", {"count": len(queued), **counts, "appdata": 0})
            connection.send(node("ib", {"from": SERVER}, preview))
        for waiting in queued:
            stanza = waiting.stanza
            connection.send(Node(stanza.tag, {**stanza.attrs, "offline": "0"}, stanza.content))
            if waiting.delivery is not None:
                self.record.delivered(waiting.delivery)
        connection.send(node("ib", {"from": SERVER}, node("offline", {"count": len(queued)})))

    def is_repeated(self, message_id: str) -> bool:
        """Return whether the device has sent this message before, and remember the message."""
        if message_id in self._message_ids:
            return True
        self._message_ids[message_id] = None
        if len(self._message_ids) > _MOST_REMEMBERED_IDS:
            self._message_ids.popitem(last=False)
        return False


class Directory:
    """All accounts, by phone number and hidden id."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._by_pn: dict[str, Account] = {}
        self._by_lid: dict[str, Account] = {}
        self._by_noise_key: dict[bytes, Companion] = {}

    @property
    def accounts(self) -> list[Account]:
        """All accounts, in order of creation."""
        return list(self._by_pn.values())

    @property
    def companions(self) -> list[Companion]:
        """All linked devices."""
        return list(self._by_noise_key.values())

    def create(self, pn: str, push_name: str) -> Account:
        """Create an account with a hidden id that does not reveal its number."""
        lid = f"{secrets.randbelow(9 * 10**13) + 10**14}"
        account = self._by_pn[pn] = self._by_lid[lid] = Account(pn, lid, push_name)
        return account

    def by_pn(self, pn: str) -> Account | None:
        """Return the account of a phone number."""
        return self._by_pn.get(pn)

    def account(self, jid: Jid | None) -> Account | None:
        """Return the account that an address belongs to."""
        if jid is None:
            return None
        return (self._by_lid if jid.server == LID_SERVER else self._by_pn).get(jid.user)

    def device(self, jid: Jid | None) -> Device | None:
        """Return the device at an address."""
        account = self.account(jid)
        return account.devices.get(jid.device) if account and jid else None

    def companion_of(self, noise_public: bytes) -> Companion | None:
        """Return the linked device whose handshake uses this key."""
        return self._by_noise_key.get(noise_public)

    def reserve_number(self, account: Account) -> int:
        """Return the number of the account's next device. A number is reused only after all others."""
        if len(account.devices) > _MOST_DEVICES:
            raise ValueError(f"{account.pn} has {_MOST_DEVICES} linked devices already")
        account.last_number = account.last_number % 250 + 1
        while account.last_number in account.devices:
            account.last_number = account.last_number % 250 + 1
        return account.last_number

    def link(self, account: Account, number: int, noise_public: bytes, shelf: Shelf) -> Companion:
        """Link a device. A client that links again with the same key is only the new device."""
        formerly = self._by_noise_key.get(noise_public)
        if formerly is not None:
            self.unlink(formerly, "linked anew")
        record = DeviceRecord(str(account.pn_jid(number)), str(account.lid_jid(number)))
        companion = Companion(account, number, noise_public, shelf, record)
        self._ledger.devices[record.jid] = record
        self._by_noise_key[noise_public] = companion
        account.devices[number] = companion
        return companion

    def unlink(self, companion: Companion, why: str) -> None:
        """Unlink a device, so that its next login fails."""
        self._by_noise_key.pop(companion.noise_public, None)
        companion.account.devices.pop(companion.number, None)
        companion.record.removed = why
