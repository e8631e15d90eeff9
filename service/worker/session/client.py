"""The one neonize client of this process: its callbacks in, its calls out.

neonize's own callbacks are replaced on the instance, before it connects: they print, lose log lines after a fork, and
show neither a failed pairing nor a passkey (docs/neonize.md, facts 9, 10, 19, 25).
"""

import ctypes
import datetime
import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import neonize.client
from neonize import events as neonize_events
from neonize._binder import ProxySettings
from neonize.exc import GetJIDFromStoreError
from neonize.proto.Neonize_pb2 import JID, LogEntry
from neonize.proto.waCompanionReg.WAWebProtobufsCompanionReg_pb2 import DeviceProps
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

from service.pgrelay.ack_gate import AckGate
from service.worker import addresses
from service.worker.inbound.events import registry
from zap.worker.v1 import frames_pb2, inbound_pb2

#: What is subscribed. Every kind more is one more that an enum value unknown to neonize can end us by (fact 8).
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
#: By neonize's number of the kind of event: what it is read as; some in a form of our own.
_FORMS: dict[int, type[Any]] = {
    **{code: registry.FORMS.get(kind, kind) for code, kind in neonize_events.INT_TO_EVENT.items()},
    neonize_events.EVENT_TO_INT[neonize_events.MessageEv]: inbound_pb2.InboundMessage,
}
_DEVICE_CODE = 0
_MESSAGES = frozenset({neonize_events.EVENT_TO_INT[neonize_events.MessageEv]})
"""What the library hands over before it clears a message from its buffer."""


@dataclass(frozen=True)
class Callbacks:
    """Who hears of what. All are called on threads of the library's, which wait until they return."""

    on_code: Callable[[str], None]
    on_login_status: Callable[[str], None]
    on_event: Callable[[Any], None]
    on_log_line: Callable[[str, str, str], None]
    """Level (of Go's), logger, line."""


@dataclass(frozen=True)
class Sent:
    """WhatsApp's server has the message."""

    message_id: str
    time: datetime.datetime


class Client:
    """A WhatsApp client that is opened and connected once. The library has to be loaded before it is opened."""

    def __init__(self, start: frames_pb2.Start, database_url: str, gate: AckGate, callbacks: Callbacks) -> None:
        """`database_url`: by way of the relay, which asks the gate."""
        self._start = start
        self._gate = gate
        self._database_url = database_url
        self._callbacks = callbacks
        self._in_callback = threading.Lock()
        self._events = 0
        self.is_asking_store = False
        """Whether a callback waits for an answer of whatsmeow's tables."""
        self._client: Any = None

    def open(self) -> None:
        """Have neonize make its client. Waits for the database."""
        start = self._start
        self._client = neonize.client.NewClient(
            self._database_url,
            jid=addresses.from_text(start.jid) if start.jid else None,
            props=DeviceProps(os="zap-service", platformType=DeviceProps.CHROME),
            uuid=start.session_id,
            new_device=not start.jid,
        )
        self._replace_callbacks()
        # Go is given this logger's level: below INFO it would write down every stanza.
        neonize.client.log.setLevel(logging.INFO)

    def _replace_callbacks(self) -> None:
        client = self._client
        client.event.list_func = {neonize_events.EVENT_TO_INT[kind]: None for kind in _EVENTS}
        client.event.execute = self._on_event
        client.qr(self._on_code)
        client._NewClient__onLoginStatus = self._on_login_status
        neonize.client.log_whatsmeow = self._on_log_line

    # --- calls

    def connect(self) -> None:
        """Connect; returns or raises only when this client is of no more use."""
        # whatsmeow has only one word for both: its names are always looked up by the proxy.
        proxy = re.sub(r"(?i)^socks5h:", "socks5:", self._start.proxy_url)
        self._client.connect(ProxySettings(proxy_address=proxy) if proxy else None)

    def disconnect(self) -> None:
        """Close the connection. May wait for a connect that is in flight."""
        self._client.disconnect()

    def finish_callback(self, timeout: float) -> bool:
        """Wait until the callback in hand has returned, and let no further one begin; return whether it has."""
        return self._in_callback.acquire(timeout=timeout)

    @property
    def event_in_hand(self) -> int:
        """The number of the event that is handled now, 0 if none is; the library hands over the next one after it."""
        return self._events if self._in_callback.locked() else 0

    def is_up(self) -> bool:
        """Whether the library says that its connection is up and logged in. May wait for a connect in flight."""
        return bool(self._client.is_connected) and bool(self._client.is_logged_in)

    def device(self) -> Any:
        """Who this is: JID, LID, push name."""
        return self._client.get_me()

    def lid_of(self, number: Any) -> Any:
        """Return the LID of a number, an empty one if the library knows none. Called by the callback of an event.

        The library keeps what it has read, and holds nothing then that waits for this callback: its map has a lock of
        its own, in which there are only statements, and the relay holds back no statement of these.
        """
        self.is_asking_store = True
        try:
            return self._client.get_lid_from_pn(number)
        except GetJIDFromStoreError:
            # The event is told by what its stanza says.
            return JID()
        finally:
            self.is_asking_store = False

    def send_text(self, to: str, body: str) -> Sent:
        """Send a text. Raises with the library's words."""
        # Never neonize's own way from text to message: it would fetch whatever address the text holds (fact 18).
        response = self._client.send_message(addresses.from_text(to), Message(conversation=body))
        return Sent(response.ID, datetime.datetime.fromtimestamp(response.Timestamp, datetime.UTC))

    def request_pairing_code(self, phone: str) -> str:
        """Ask for a code to type on the phone. Only after the first code to scan was shown (fact 11)."""
        return str(self._client.PairPhone(phone, True))  # noqa: FBT003

    def log_out(self) -> None:
        """Unlink this device at WhatsApp."""
        self._client.logout()

    # --- callbacks; ctypes swallows what they raise, so they see to it themselves

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
        except Exception as error:  # noqa: BLE001 - one thing that is not understood must not hide those that follow
            words = f"{what} of the library could not be handled: {type(error).__name__}: {error}"
            self._callbacks.on_log_line("ERROR", "zap", words)


def prepare_store(library: Any, database_url: str, on_log_line: Callable[[str, str, str], None]) -> str:
    """Have whatsmeow create or upgrade its tables; its words if it could not, else nothing.

    Listing the devices opens the store, which does it. An error comes back in the place of the list.
    """

    def forward(binary: int, size: int) -> None:
        entry = LogEntry.FromString(ctypes.string_at(binary, size))
        on_log_line(entry.Level, entry.Name, entry.Message)

    callback = neonize.client.func_callback_bytes2(forward)
    listed = str(library.GetAllDevices(database_url.encode(), callback).decode())
    return "" if all(_is_device(item) for item in listed.split("|\u0001|") if item) else listed


def _is_device(item: str) -> bool:
    return len(item.split(",")) >= 4 and "@" in item.partition(",")[0]
