"""Wraps the neonize client of a session: its callbacks and its calls.

neonize's callbacks are replaced on the instance before it connects. They print, lose log lines after a fork, and report
neither a failed pairing nor a passkey request (docs/neonize.md, login-status callback).
"""

import ctypes
import datetime
import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import neonize.client
from neonize import events as neonize_events
from neonize._binder import ProxySettings
from neonize.exc import GetJIDFromStoreError
from neonize.proto.Neonize_pb2 import JID, LogEntry
from neonize.proto.waCompanionReg.WAWebProtobufsCompanionReg_pb2 import DeviceProps
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message
from neonize.utils.enum import ChatPresence, ChatPresenceMedia, ReceiptType

from service.pgrelay.ack_gate import AckGate
from service.worker import addresses
from service.worker.inbound.events import registry
from zap.worker.v1 import frames_pb2, inbound_pb2

#: Keep this short: any subscribed event can carry an enum value that neonize does not map, which ends this process
#: (docs/neonize.md).
_EVENTS = (
    neonize_events.PairStatusEv,
    neonize_events.ConnectedEv,
    neonize_events.KeepAliveTimeoutEv,
    neonize_events.KeepAliveRestoredEv,
    neonize_events.LoggedOutEv,
    neonize_events.StreamReplacedEv,
    neonize_events.TemporaryBanEv,
    neonize_events.ConnectFailureEv,
    neonize_events.ClientOutdatedEv,
    neonize_events.StreamErrorEv,
    neonize_events.DisconnectedEv,
    neonize_events.MessageEv,
    neonize_events.UndecryptableMessageEv,
    neonize_events.ReceiptEv,
    *registry.SUBSCRIBED,
)
#: The class that parses an event, by neonize's number of its kind.
_FORMS: dict[int, type[Any]] = {
    **{code: registry.FORMS.get(kind, kind) for code, kind in neonize_events.INT_TO_EVENT.items()},
    neonize_events.EVENT_TO_INT[neonize_events.MessageEv]: inbound_pb2.InboundMessage,
}
_DEVICE_CODE = 0
_MESSAGES = frozenset({neonize_events.EVENT_TO_INT[neonize_events.MessageEv]})
"""Kinds of event that the library delivers before it clears a message from its buffer."""


@dataclass(frozen=True)
class Callbacks:
    """Receivers of the library's callbacks. They are called on the library's threads, which wait until they return."""

    on_code: Callable[[str], None]
    on_login_status: Callable[[str], None]
    on_event: Callable[[Any], None]
    on_log_line: Callable[[str, str, str], None]
    """Takes Go's level, the logger and the line."""


@dataclass(frozen=True)
class Sent:
    """A message that WhatsApp's server has accepted."""

    message_id: str
    time: datetime.datetime
    chat: str
    """The chat as WhatsApp has it, as a JID."""


class Client:
    """A WhatsApp client that is opened and connected once. The library must be loaded before it is opened."""

    def __init__(self, start: frames_pb2.Start, database_url: str, gate: AckGate, callbacks: Callbacks) -> None:
        """`database_url` leads through the relay, which asks the acknowledgement gate."""
        self._start = start
        self._gate = gate
        self._database_url = database_url
        self._callbacks = callbacks
        self._in_callback = threading.Lock()
        self._events = 0
        self.is_asking_store = False
        """Whether a callback waits for a query to whatsmeow's tables."""
        self._client: Any = None

    def open(self) -> None:
        """Create neonize's client. This waits for the database."""
        start = self._start
        self._client = neonize.client.NewClient(
            self._database_url,
            jid=addresses.from_text(start.jid) if start.jid else None,
            props=DeviceProps(os="zap-service", platformType=DeviceProps.CHROME),
            uuid=start.session_id,
            new_device=not start.jid,
        )
        self._replace_callbacks()
        # Go takes over this logger's level. Below INFO it would log every stanza.
        neonize.client.log.setLevel(logging.INFO)

    def _replace_callbacks(self) -> None:
        client = self._client
        client.event.list_func = {neonize_events.EVENT_TO_INT[kind]: None for kind in _EVENTS}
        client.event.execute = self._on_event
        client.qr(self._on_code)
        client._NewClient__onLoginStatus = self._on_login_status
        neonize.client.log_whatsmeow = self._on_log_line

    # --- calls

    @property
    def library(self) -> Any:
        """Return neonize's client, for the tables of calls. Before it is connected, many calls end the process."""
        return self._client

    def connect(self) -> None:
        """Connect; return or raise only when this client is no longer usable."""
        # whatsmeow knows only socks5, and always lets the proxy resolve names.
        proxy = re.sub(r"(?i)^socks5h:", "socks5:", self._start.proxy_url)
        self._client.connect(ProxySettings(proxy_address=proxy) if proxy else None)

    def disconnect(self) -> None:
        """Close the connection. This can wait for a connect in flight."""
        self._client.disconnect()

    def finish_callback(self, timeout: float) -> bool:
        """Wait until the running callback has returned, and let no other one begin; return whether it has."""
        return self._in_callback.acquire(timeout=timeout)

    @property
    def current_event(self) -> int:
        """Return the number of the event that is being handled, 0 if there is none."""
        return self._events if self._in_callback.locked() else 0

    def is_up(self) -> bool:
        """Return whether the library is connected and logged in. This can wait for a connect in flight."""
        return bool(self._client.is_connected) and bool(self._client.is_logged_in)

    def device(self) -> Any:
        """Return this device with its JID, LID and push name."""
        return self._client.get_me()

    def lid_of(self, number: Any) -> Any:
        """Return the LID of a number, an empty one if the library knows none. Called inside the callback of an event.

        This cannot deadlock: the lock of the library's map covers only statements that the relay never delays.
        """
        self.is_asking_store = True
        try:
            return self._client.get_lid_from_pn(number)
        except GetJIDFromStoreError:
            # The event keeps the address from its stanza.
            return JID()
        finally:
            self.is_asking_store = False

    def send(self, to: str, message: Message) -> Sent:
        """Send a message to a JID. Raise the library's exception if that fails."""
        response = self._client.send_message(addresses.from_text(to), message)
        time = datetime.datetime.fromtimestamp(response.Timestamp, datetime.UTC)
        return Sent(response.ID, time, addresses.person_to_text(response.Chat))

    def chat_of(self, jid: str) -> str:
        """Return the JID under which WhatsApp has a chat: a person's LID, if the library knows it."""
        if not jid.endswith("@s.whatsapp.net"):
            return jid
        try:
            lid = self._client.get_lid_from_pn(addresses.from_text(jid))
        except GetJIDFromStoreError:
            return jid
        return addresses.person_to_text(lid) if lid.User else jid

    def own_address(self, chat: str) -> str:
        """Return the account's JID as others see it in a chat: its number in one by number, and else its LID."""
        device = self.device()
        is_by_number = chat.endswith("@s.whatsapp.net") or not device.LID.User
        return addresses.person_to_text(device.JID if is_by_number else device.LID)

    def show_typing(self, to: str) -> None:
        """Show a chat that the account is typing. WhatsApp shows it for about 25 seconds, or until a message comes."""
        jid = addresses.from_text(self.chat_of(to))
        # Any other number than those of the enums would abort the process.
        typing, media = ChatPresence.CHAT_PRESENCE_COMPOSING, ChatPresenceMedia.CHAT_PRESENCE_MEDIA_TEXT
        self._client.send_chat_presence(jid, typing, media)

    def mark_read(self, chat: str, sender: str, message_ids: Sequence[str], *, is_played: bool) -> None:
        """Report messages of one author as read or played. Return when the report has left: WhatsApp answers none."""
        receipt = ReceiptType.PLAYED if is_played else ReceiptType.READ
        of = {"chat": addresses.from_text(self.chat_of(chat)), "sender": addresses.from_text(self.chat_of(sender))}
        self._client.mark_read(*message_ids, **of, receipt=receipt)

    def request_pairing_code(self, phone: str) -> str:
        """Request a code to type on the phone. Before the first QR code is shown this would block the library."""
        return str(self._client.PairPhone(phone, True))  # noqa: FBT003

    def log_out(self) -> None:
        """Unlink this device at WhatsApp."""
        self._client.logout()

    # --- callbacks; ctypes swallows exceptions, so each callback catches and logs them

    def _on_event(self, _: int, binary: int, size: int, code: int) -> None:
        with self._in_callback, self._gate.handling(is_message=code in _MESSAGES):
            self._events += 1
            self._guarded("an event", self._dispatch, binary, size, code)

    def _dispatch(self, binary: int, size: int, code: int) -> None:
        if code != _DEVICE_CODE:
            self._callbacks.on_event(_FORMS[code].FromString(ctypes.string_at(binary, size)))

    def _on_code(self, _: Any, text: bytes) -> None:
        self._guarded("a code", lambda: self._callbacks.on_code(text.decode()))

    def _on_login_status(self, _: int, status: int) -> None:
        self._guarded("a login status", lambda: self._callbacks.on_login_status(ctypes.string_at(status).decode()))

    def _on_log_line(self, binary: int, size: int) -> None:
        self._guarded("a log line", self._forward_log_line, binary, size)

    def _forward_log_line(self, binary: int, size: int) -> None:
        if binary and size > 0:
            entry = LogEntry.FromString(ctypes.string_at(binary, size))
            self._callbacks.on_log_line(entry.Level, entry.Name, entry.Message)

    def _guarded(self, what: str, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 - one unreadable event must not block those that follow
            words = f"{what} of the library could not be handled: {type(error).__name__}: {error}"
            self._callbacks.on_log_line("ERROR", "zap", words)


def prepare_store(library: Any, database_url: str, on_log_line: Callable[[str, str, str], None]) -> str:
    """Have whatsmeow create or upgrade its tables; return its error, or an empty text.

    Listing the devices opens the store, which does so. On failure the error is returned instead of the list.
    """

    def forward(binary: int, size: int) -> None:
        entry = LogEntry.FromString(ctypes.string_at(binary, size))
        on_log_line(entry.Level, entry.Name, entry.Message)

    callback = neonize.client.func_callback_bytes2(forward)
    listed = str(library.GetAllDevices(database_url.encode(), callback).decode())
    return "" if all(_is_device(item) for item in listed.split("|\u0001|") if item) else listed


def _is_device(item: str) -> bool:
    return len(item.split(",")) >= 4 and "@" in item.partition(",")[0]
