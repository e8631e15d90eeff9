"""Simulates a person's phone, which reads and writes encrypted messages and signs linked devices."""

from __future__ import annotations

import zlib
from collections import deque

from simulator.accounts import Account, Companion
from simulator.app_state import AppState
from simulator.binary_xml import Node
from simulator.inbox import Inbox
from simulator.letters import Letter
from simulator.network import Addressee, Network
from simulator.outbox import Outbox, SentMessage
from simulator.prekeys import PreKeyBundle
from simulator.reader import Reader
from simulator.schemas import APP_STATE_KEY_SHARE, HISTORY_SYNC, Content, HistorySyncNotification, ProtocolMessage
from simulator.signal_state import SignalState
from simulator.signing import SigningKey
from simulator.writer import Writer


class PhoneIsOff(ValueError):
    """The operation needs a phone that is switched on."""


class Phone:
    """Device 0 of an account."""

    number = 0

    def __init__(self, account: Account, network: Network) -> None:
        self._account = account
        self._router = network.router
        self._signal = SignalState(network.bundle)
        self.app_state = AppState(account.push_name)
        self.inbox = Inbox()
        self.outbox = Outbox()
        self.reader = Reader(account, self._signal, network, self.inbox, self._send)
        self._writer = Writer(account, self._signal, network, self.outbox, self._send)
        self._waiting: deque[Node] = deque()
        self._is_on = True

    @property
    def account(self) -> Account:
        return self._account

    @property
    def identity(self) -> SigningKey:
        """The account's Signal identity."""
        return self._signal.keys.identity

    def bundle(self) -> PreKeyBundle:
        return self._signal.keys.bundle()

    # --- power

    @property
    def is_on(self) -> bool:
        """Return whether the phone is switched on. While it is off, its stanzas wait at the server."""
        return self._is_on

    @property
    def waiting(self) -> int:
        """Number of stanzas that wait for the phone at the server."""
        return len(self._waiting)

    def switch_off(self) -> None:
        """Switch the phone off. The account's linked devices stay on."""
        self._is_on = False

    def switch_on(self) -> None:
        """Switch the phone on, and process the stanzas that waited."""
        self._is_on = True
        while self._waiting:
            self._take(self._waiting.popleft())

    def require_on(self) -> None:
        """Raise PhoneIsOff if the phone is switched off."""
        if not self._is_on:
            raise PhoneIsOff(f"the phone {self._account.pn} is switched off")

    # --- writing

    def write(self, to: Addressee, letter: Letter, text: str = "", *, begin_anew: bool = False) -> SentMessage:
        """Write to a person or a group: to each of their devices, and to the linked devices of this account.

        `begin_anew` is for the first message of a conversation: with new sessions, or in a group with a new sender key.
        """
        self.require_on()
        return self._writer.write(to, letter, text, begin_anew=begin_anew)

    def edit(self, message_id: str, text: str) -> SentMessage | None:
        """Edit a message that was written here. Return None if there is none."""
        self.require_on()
        message = self.outbox.find(message_id)
        return self._writer.edit(message, text) if message is not None else None

    def repeat(self, message_id: str) -> bool:
        """Send a message again to its addressee's devices, encrypted anew. Return False if there is none."""
        self.require_on()
        message = self.outbox.find(message_id)
        if message is not None:
            self._writer.repeat(message)
        return message is not None

    def mark_read(self, message_id: str) -> bool:
        """Send a read receipt for a message. Return False if there is no such message."""
        self.require_on()
        return self.reader.mark_read(message_id)

    def share_app_state(self, companion: Companion) -> None:
        """Send a newly linked device the key of the app state."""
        share = ProtocolMessage(type=APP_STATE_KEY_SHARE, app_state_key_share=self.app_state.key_share())
        self._writer.send_to_companion(companion.number, Content(protocol_message=share))

    def share_history(self, companion: Companion, history: bytes) -> None:
        """Send a linked device a piece of history inside a message, as phones do with small ones."""
        self.require_on()
        inline = HistorySyncNotification(inline=zlib.compress(history))
        content = Content(protocol_message=ProtocolMessage(type=HISTORY_SYNC, history_sync=inline))
        self._writer.send_to_companion(companion.number, content)

    def _send(self, stanza: Node) -> None:
        if stanza.tag == "message":
            self._router.message(self, stanza)
        else:
            self._router.receipt(self, stanza)

    # --- reading

    def receive(self, stanza: Node) -> None:
        """Process a stanza from the server, now or when the phone is switched on."""
        if self._is_on and not self._waiting:
            self._take(stanza)
        else:
            self._waiting.append(stanza)

    def _take(self, stanza: Node) -> None:
        if stanza.tag == "message":
            self.reader.read(stanza)
        elif stanza.tag == "receipt":
            self._writer.hear(stanza)
