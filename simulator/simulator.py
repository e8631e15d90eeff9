"""Wires the simulator together and offers all operations for tests."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from simulator.accounts import Companion, Directory
from simulator.binary_xml import Node, node
from simulator.bookkeeping import Ledger
from simulator.calls import Call, Calls, Media
from simulator.certificates import CertificateAuthority
from simulator.connection import Connection
from simulator.faults import Faults, LoginFailure, Target
from simulator.groups import Group, Groups
from simulator.jid import GROUP_SERVER, Jid
from simulator.letters import Letter, text_letter
from simulator.linking import Flaw, Linking, LinkResult, QrText
from simulator.linking_code import CodeLinking
from simulator.listeners import Listener, PlainListener, ProxyListener, Refusal
from simulator.network import Addressee, Network, address_of
from simulator.newsletters import Newsletters
from simulator.noise import ServerIdentity
from simulator.outbox import SentMessage
from simulator.phone import Phone
from simulator.presences import Presences
from simulator.queries import Queries
from simulator.router import Router
from simulator.server import WhatsAppServer
from simulator.tokens import installed_tokens

log = logging.getLogger(__name__)

TEMPORARY_BAN = 402


class UnknownPhone(LookupError):
    """No account has this phone number."""


class UnknownGroup(LookupError):
    """No group has this address."""


class UnknownDevice(LookupError):
    """No linked device has this address."""


@dataclass(frozen=True)
class Settings:
    """The settings of a simulator."""

    listen: tuple[str, int] = ("127.0.0.1", 0)
    proxy_listen: tuple[str, int] = ("127.0.0.1", 0)
    #: number of QR codes per client; with 6 it shows the first for 60 seconds, with any other number for 20
    qr_refs: int = 6
    #: whether new clients are made to upload 50 prekeys instead of the real 812
    few_prekeys: bool = True


class Simulator:
    """A simulated WhatsApp with its accounts."""

    def __init__(self, settings: Settings) -> None:
        installed_tokens()  # fail now, and not at the first stanza, if the installed neonize is not supported
        self._settings = settings
        self.identity = ServerIdentity()
        self.authority = CertificateAuthority()
        self.ledger = Ledger()
        self.faults = Faults()
        self.directory = Directory(self.ledger)
        self.groups = Groups()
        self.newsletters = Newsletters()
        router = Router(self.directory, self.groups)
        self._network = Network(self.directory, self.groups, router, self.faults)
        self.linking = Linking(self.directory, self.ledger, self.faults, settings.qr_refs)
        self._code_linking = CodeLinking(self.linking, self.ledger)
        self._queries = Queries(
            self.directory, self.groups, self.newsletters, self.ledger, few_prekeys=settings.few_prekeys
        )
        self.presences = Presences(self.directory, self.groups)
        self.calls = Calls(self.ledger)
        self.server = WhatsAppServer(
            self.identity,
            self.directory,
            router,
            self.linking,
            self._code_linking,
            self._queries,
            self.faults,
            self.ledger,
            presences=self.presences,
            calls=self.calls,
            newsletters=self.newsletters,
        )
        self._plain = PlainListener(self.server.serve, self._next_refusal)
        self._proxy = ProxyListener(self.server.serve, self._next_refusal, self.authority.server_context())

    @property
    def websocket_url(self) -> str:
        """The URL for a client whose URL is patched."""
        return f"ws://{self._plain.address}/ws/chat"

    @property
    def proxy_url(self) -> str:
        """The URL of the proxy for clients whose URL is not patched."""
        return f"http://{self._proxy.address}"

    async def start(self) -> None:
        """Start listening."""
        await self._plain.start(*self._settings.listen)
        await self._proxy.start(*self._settings.proxy_listen)

    async def stop(self) -> None:
        """Stop listening and cut all connections."""
        listeners: tuple[Listener, ...] = (self._plain, self._proxy)
        for listener in listeners:
            await listener.stop()
        self.server.cut_all()

    def write_trust(self, directory: Path) -> None:
        """Write the files with which a client trusts this server: ca.pem and noise-root.hex."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ca.pem").write_bytes(self.authority.pem)
        (directory / "noise-root.hex").write_text(self.identity.root.public.hex() + "\n")

    # --- people

    def create_phone(self, pn: str, push_name: str) -> Phone:
        """Return the phone with this number, and create it with an account if there is none."""
        account = self.directory.by_pn(pn)
        if account is None:
            account = self.directory.create(pn, push_name)
            account.devices[Phone.number] = Phone(account, self._network)
        return self.phone(pn)

    def phone(self, pn: str) -> Phone:
        """Return the phone with this number."""
        account = self.directory.by_pn(pn)
        phone = account.devices.get(Phone.number) if account else None
        if not isinstance(phone, Phone):
            raise UnknownPhone(f"no phone has the number {pn}")
        return phone

    def group(self, jid: str) -> Group:
        """Return the group at this address."""
        group = self._addressee(jid)
        if not isinstance(group, Group):
            raise UnknownGroup(f"no group has the address {jid}")
        return group

    def create_group(self, creator: str, subject: str, members: list[str]) -> Group:
        """Create a group from a phone. People who do not let this person add them do not become members."""
        people = [self.phone(pn).account for pn in members]
        named = (node("participant", {"jid": account.lid_jid()}) for account in people)
        wanted = node("create", {"subject": subject}, *named)
        (made,) = self.ask(creator, node("iq", {"xmlns": "w:g2", "type": "set", "to": Jid("", GROUP_SERVER)}, wanted))
        return self.group(str(Jid(made.text("id"), GROUP_SERVER)))

    async def scan(self, pn: str, qr_text: str, flaw: Flaw = Flaw.NONE) -> LinkResult:
        """Scan a QR code with a phone."""
        phone = self.phone(pn)
        phone.require_on()
        return await self.linking.scan(phone, QrText.parse(qr_text), flaw)

    async def type_code(self, pn: str, code: str, flaw: Flaw = Flaw.NONE) -> LinkResult:
        """Type a linking code into a phone."""
        phone = self.phone(pn)
        phone.require_on()
        return await self._code_linking.type_code(phone, code, flaw)

    def write(self, pn: str, to: str, text: str, *, begin_anew: bool = False, is_garbled: bool = False) -> SentMessage:
        """Write a text from a phone to a person or a group (`Phone.write`, `Letter.is_garbled`)."""
        letter = text_letter(text, is_garbled=is_garbled)
        return self.phone(pn).write(self._addressee(to), letter, text, begin_anew=begin_anew)

    def post(self, pn: str, to: str, letter: Letter) -> SentMessage:
        """Send a message of any kind from a phone to a person or a group."""
        return self.phone(pn).write(self._addressee(to), letter)

    def type(self, pn: str, to: str, state: str, media: str = "") -> None:
        """Have a person type to another or to a group (composing, perhaps audio), or stop (paused)."""
        phone = self.phone(pn)
        phone.require_on()
        chat = address_of(self._addressee(to))
        self.presences.type(phone, node("chatstate", {"to": chat}, node(state, {"media": media or None})))

    def call(self, pn: str, to: str, media: Media) -> Call:
        """Have a person call another or a group."""
        phone = self.phone(pn)
        phone.require_on()
        return self.calls.offer(phone.account, self._addressee(to), media)

    def ask(self, pn: str, query: Node) -> list[Node]:
        """Send the server a query from a phone. Return the content of the result; raise QueryFailed."""
        phone = self.phone(pn)
        phone.require_on()
        return self._queries.answer_phone(phone, query)

    def _addressee(self, name: str) -> Addressee:
        """Return the account or the group that a phone number or an address names."""
        addressee = self._network.addressee(name)
        if addressee is not None:
            return addressee
        if "@" in name:
            raise UnknownGroup(f"no group has the address {name}")
        raise UnknownPhone(f"no phone has the number {name}")

    # --- linked devices

    def companion(self, address: str) -> Companion:
        """Return the linked device at this address."""
        try:
            device = self.directory.device(Jid.parse(address))
        except ValueError:
            device = None
        if not isinstance(device, Companion):
            raise UnknownDevice(f"no linked device has the address {address}")
        return device

    def companions(self, target: Target) -> list[Companion]:
        """Return the selected linked devices."""
        return [device for device in self.directory.companions if target.covers(device.addresses)]

    def drop(self, target: Target) -> int:
        """Cut the connections of these devices. Return their number."""
        connected = self._connections(target)
        for connection in connected:
            connection.abort()
        return len(connected)

    def kick(self, target: Target, code: int) -> int:
        """End the connections of these devices with a stream error. Return their number."""
        connected = self._connections(target)
        for connection in connected:
            connection.end(node("stream:error", {"code": code}))
        return len(connected)

    def end_streams(self, target: Target) -> int:
        """End the connections of these devices with <xmlstreamend/>. Return their number."""
        connected = self._connections(target)
        for connection in connected:
            connection.end(node("xmlstreamend"))
        return len(connected)

    def replace(self, target: Target) -> int:
        """End the connections of these devices as if others had logged in. Return their number."""
        connected = [device for device in self.companions(target) if device.connection]
        for device in connected:
            self.server.replace(device)
        return len(connected)

    def ban(self, target: Target, code: int, expire: int) -> int:
        """Ban these devices: cut their connections, and fail every login until faults are cleared."""
        self.faults.login_failures.append(LoginFailure(target, None, TEMPORARY_BAN, code, expire))
        return self.drop(target)

    def log_out(self, target: Target) -> int:
        """Unlink these devices from the phone, at once or at their next login. Return their number."""
        devices = self.companions(target)
        for device in devices:
            if device.connection is not None:
                device.connection.end(node("stream:error", {"code": 401}, node("conflict", {"type": "device_removed"})))
            self.directory.unlink(device, "logged out on the phone")
        return len(devices)

    def send_receipt(self, target: Target, sender: str, kind: str) -> int:
        """Send these devices a receipt of any type for a non-existent message. Return their number."""
        devices, source = self.companions(target), self.phone(sender).account.lid_jid()
        for device in devices:
            message_id = "3EB0" + secrets.token_hex(9).upper()
            device.receive(
                node("receipt", {"from": source, "id": message_id, "type": kind or None, "t": int(time.time())})
            )
        return len(devices)

    def deliver(self, target: Target, stanza: Node) -> int:
        """Send these devices a stanza of any kind until they confirm it. Return their number."""
        devices = self.companions(target)
        for device in devices:
            device.receive(stanza)
        return len(devices)

    def share_history(self, pn: str, history: bytes) -> int:
        """Send a phone's linked devices a piece of history, a serialised HistorySync. Return the number of devices."""
        phone = self.phone(pn)
        for device in phone.account.companions:
            phone.share_history(device, history)
        return len(phone.account.companions)

    def _connections(self, target: Target) -> list[Connection]:
        linked = [device.connection for device in self.companions(target) if device.connection]
        return [*linked, *self.server.candidates(target)]

    def _next_refusal(self) -> Refusal | None:
        refusal = self.faults.next_refusal()
        self.ledger.refused_connections += refusal is not None
        return refusal
