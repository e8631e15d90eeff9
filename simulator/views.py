"""Defines the answers of the control interface as dataclasses, shared by its server and its client."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from simulator.bookkeeping import Interval, MessageCounts, PairingCounts

View = TypeVar("View")


@dataclass
class Addresses:
    """The addresses of a simulator, and the keys with which clients trust it."""

    control: str  #: base URL of the control interface
    websocket: str  #: ws:// URL for clients whose URL is patched (SIMULATOR_URL)
    proxy: str  #: http:// URL of the CONNECT proxy
    noise_root: str  #: hexadecimal root key (SIMULATOR_NOISE_ROOT)
    ca: str  #: file with the certificate authority for clients that come through the proxy (SSL_CERT_FILE)


@dataclass
class PhoneView:
    """A phone and the devices linked to it."""

    pn: str
    lid: str
    push_name: str
    devices: list[str]
    #: messages that arrived and could not be decrypted
    unreadable: int
    sends_read_receipts: bool
    is_on: bool
    #: stanzas that wait until it is switched on
    waiting: int


@dataclass
class ProfileView:
    """What a person shows to others, and the settings of who sees it: see `profiles.Profile`."""

    about: str
    #: id of the picture; empty if there is none
    picture: str
    business_name: str
    #: values by name of the setting
    privacy: dict[str, str]
    #: phone numbers in the person's address book
    contacts: list[str]
    #: phone numbers of the people that the person has blocked
    blocked: list[str]
    #: seconds after which messages of new chats disappear; 0 is never
    disappearing: int


@dataclass
class TypingView:
    """A typing state that reached a phone: see `presences.Typing`."""

    sender: str  #: phone number
    chat: str
    state: str
    media: str
    at: float


@dataclass
class PresenceView:
    """The presence of a person."""

    is_available: bool
    last_seen_at: int | None
    #: addresses of the linked devices that have asked for it
    subscribers: list[str]
    #: what reached the phone while it was available
    typings: list[TypingView]


@dataclass
class CallView:
    """A call that a person made: see `calls.Call`."""

    id: str
    to: str  #: phone number, or address of a group
    media: str
    state: str
    at: float


@dataclass
class GroupView:
    """A group, whose address has the form …@g.us: see `groups.Group`."""

    jid: str
    subject: str
    creator: str  #: phone number
    members: list[str]  #: phone numbers, the creator's first
    created_at: int
    admins: list[str]
    description: str
    is_locked: bool
    is_announcement: bool
    #: seconds after which messages disappear; 0 is never
    expiration: int
    only_admins_add: bool
    needs_approval: bool
    invite_code: str
    requests: list[str]  #: phone numbers of the people who wait for an approval
    #: id of the picture; empty if there is none
    picture: str
    is_community: bool
    parent: str  #: address of the community; empty if there is none


@dataclass
class PostView:
    """A message of a newsletter: see `newsletters.Post`."""

    server_id: int
    id: str
    type: str
    content: str  #: the bytes of a waE2E.Message in base64
    views: int
    reactions: dict[str, int]  #: numbers by emoji


@dataclass
class NewsletterView:
    """A newsletter, whose address has the form …@newsletter: see `newsletters.Newsletter`."""

    jid: str
    name: str
    description: str
    owner: str  #: phone number
    invite: str
    followers: list[str]  #: phone numbers, with the owner's
    muted: list[str]  #: phone numbers of the followers that have muted it
    posts: list[PostView]


@dataclass
class LinkView:
    """How a linking attempt ended (see `linking.Outcome`)."""

    outcome: str
    detail: str = ""
    jid: str | None = None
    lid: str | None = None


@dataclass
class InboxView:
    """A message that a phone has read: see `inbox.InboxMessage`."""

    id: str
    sender: str
    sender_device: int
    to: str
    text: str
    timestamp: float
    times: int
    #: number of retries until the phone could read it
    retries: int
    edits: int


@dataclass
class UnreadableView:
    """A message that a phone has not been able to read: see `inbox.UnreadableMessage`."""

    id: str
    sender: str
    sender_device: int
    chat: str
    timestamp: float
    retries: int
    is_given_up: bool


@dataclass
class DeliveryView:
    """A message for a linked device: see `deliveries.Delivery`."""

    id: str
    sender: str
    chat: str
    kinds: list[str]
    retry: int
    queued_at: float
    delivered: int
    acknowledged_at: float | None
    acknowledged_by: str


@dataclass
class ReceiptView:
    """A device's receipt: "delivered", "inactive" (delivered to an inactive client), "read", "retry"."""

    device: str
    type: str
    timestamp: float


@dataclass
class SentView:
    """A message that a phone wrote."""

    id: str
    to: str
    text: str
    timestamp: float
    receipts: list[ReceiptView]


@dataclass
class DeviceView:
    """A device that is or was linked: see `bookkeeping.DeviceRecord`."""

    jid: str
    lid: str
    paired_at: float
    logins: int
    failed_logins: int
    connections: int
    most_connections: int
    overlaps: int
    replaced: int
    stanzas: int
    removed: str | None
    intervals: list[Interval]
    messages: MessageCounts
    #: stanzas that the device has not confirmed yet
    queue: int
    one_time_prekeys: int


@dataclass
class StateView:
    """The simulator as a whole."""

    pairing: PairingCounts
    connections: int
    rubbish: int
    refused_connections: int
    #: queries that wait to be released
    held_queries: int = 0
    #: number of clients that wait at each step (see `gates.Step`)
    waiting: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)


def to_json(view: Any) -> Any:
    """Return a view, or a list of views, as JSON values."""
    if isinstance(view, list):
        return [to_json(item) for item in view]
    return dataclasses.asdict(view)


def from_json(kind: type[View], value: Mapping[str, Any]) -> View:
    """Return the view of this kind from JSON values. Unknown fields are ignored."""
    hints = typing.get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(kind) if item.name in value]  # type: ignore[arg-type]
    return kind(**{name: _convert(hints[name], value[name]) for name in names})


def _convert(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return [_convert(arguments[0], item) for item in value]
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(arguments[0], value)
    return from_json(hint, value) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else value
