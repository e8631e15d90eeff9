"""Counts the activity of the simulator. Tests assert on these numbers instead of reading logs."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from simulator.binary_xml import Node
from simulator.deliveries import Delivery

_MOST_INTERVALS = 10_000
_MOST_UNKNOWN = 200
_MOST_DELIVERIES = 50_000


@dataclass
class Interval:
    """One connection of a device, in Unix seconds; it is open while `disconnected_at` is None."""

    connected_at: float
    disconnected_at: float | None = None


@dataclass
class MessageCounts:
    """Numbers of a device's messages, by outcome."""

    #: messages that the device sent to the server
    sent: int = 0
    #: messages that the device sent again (same id): acknowledged, but not routed again
    resent: int = 0
    #: messages that the device sent again because another device had asked for them
    answered: int = 0
    #: messages put into the device's queue
    queued: int = 0
    #: messages written to a connection of the device, redeliveries included
    delivered: int = 0
    #: messages that the device confirmed
    receipted: int = 0
    #: messages that the device reported as unreadable
    retry_receipted: int = 0
    #: stanzas pushed out of a full queue
    dropped: int = 0


@dataclass
class DeviceRecord:
    """The history of one device. It is kept after the device is unlinked."""

    jid: str
    lid: str
    paired_at: float = field(default_factory=time.time)
    logins: int = 0
    failed_logins: int = 0
    connections: int = 0
    most_connections: int = 0
    #: times that a second connection logged in while one was still open
    overlaps: int = 0
    #: connections ended with "replaced", by a second login or by a test
    replaced: int = 0
    #: stanzas received since it was linked, without answers to the server's queries
    stanzas: int = 0
    #: why the device is no longer linked; None while it is
    removed: str | None = None
    intervals: deque[Interval] = field(default_factory=lambda: deque(maxlen=_MOST_INTERVALS))
    messages: MessageCounts = field(default_factory=MessageCounts)
    #: the newest messages for it
    deliveries: deque[Delivery] = field(default_factory=lambda: deque(maxlen=_MOST_DELIVERIES))

    def connected(self) -> Interval:
        """Record the login of a connection."""
        self.logins += 1
        self.connections += 1
        self.most_connections = max(self.most_connections, self.connections)
        interval = Interval(time.time())
        self.intervals.append(interval)
        return interval

    def disconnected(self, interval: Interval) -> None:
        """Record the end of a connection."""
        self.connections -= 1
        interval.disconnected_at = time.time()

    def queued(self, message: Node) -> Delivery:
        """Record a message for the device."""
        self.messages.queued += 1
        chat, parts = message.text("from"), list(message.find_all("enc"))
        kinds = [part.text("type") for part in parts]
        retry = max((int(part.text("count") or 0) for part in parts), default=0)
        delivery = Delivery(message.text("id"), message.text("participant") or chat, chat, kinds, retry)
        self.deliveries.append(delivery)
        return delivery

    def delivered(self, delivery: Delivery) -> None:
        """Record that a message was written to a connection of the device."""
        self.messages.delivered += 1
        delivery.delivered += 1


@dataclass
class PairingCounts:
    """Numbers of linking attempts, by outcome."""

    #: clients that connected without an account
    candidates: int = 0
    qr_refs: int = 0
    code_requests: int = 0
    scans: int = 0
    codes_typed: int = 0
    paired: int = 0
    failures: int = 0
    passkey_requests: int = 0


@dataclass
class Ledger:
    """All counters of a simulator."""

    pairing: PairingCounts = field(default_factory=PairingCounts)
    #: devices by PN address, linked and formerly linked
    devices: dict[str, DeviceRecord] = field(default_factory=dict)
    #: current connections of devices and of clients that are not linked yet
    connections: int = 0
    #: connections whose handshake or first frames were not a client's
    rubbish: int = 0
    refused_connections: int = 0
    #: numbers of stanzas that the simulator has no handler for, by "tag/namespace/child"
    unknown: dict[str, int] = field(default_factory=dict)

    def note_unknown(self, description: str) -> bool:
        """Count an unknown stanza. Return whether it is the first of its kind."""
        is_new = description not in self.unknown
        if not is_new or len(self.unknown) < _MOST_UNKNOWN:
            self.unknown[description] = self.unknown.get(description, 0) + 1
        return is_new
