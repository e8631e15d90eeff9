"""One neonize client in a process of its own, told what to do and telling what it sees in lines of JSON.

Usage: ``python -m tests.e2e.neonize_client STORE`` with the simulator's environment (`SimulatorProcess.environment`).
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import sys
import threading
from typing import Any

from neonize.client import NewClient
from neonize.events import (
    ClientOutdatedEv,
    ConnectedEv,
    ConnectFailureEv,
    DisconnectedEv,
    JoinedGroupEv,
    KeepAliveTimeoutEv,
    LoggedOutEv,
    MessageEv,
    PairStatusEv,
    ReceiptEv,
    StreamErrorEv,
    StreamReplacedEv,
    TemporaryBanEv,
    UndecryptableMessageEv,
)
from neonize.proto.Neonize_pb2 import JID
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message
from neonize.utils import build_jid
from neonize.utils.enum import Presence

from simulator.preload import aim
from tests.e2e.neonize_calls import SHOWN_EVENTS, carry_out, shown

_MARK = "event "
_write_lock = threading.Lock()


def tell(what: str, **fields: object) -> None:
    """Tell the test about something. Lines without the mark are neonize's own chatter."""
    with _write_lock:
        sys.stdout.write(_MARK + json.dumps({"event": what, **fields}) + "\n")
        sys.stdout.flush()


class _TellLogLines(logging.Handler):
    """Hands whatsmeow's warnings to the test."""

    def emit(self, record: logging.LogRecord) -> None:
        tell("log", level=record.levelname, text=record.getMessage())


class Client:
    """The client under test and its commands."""

    def __init__(self, store: str) -> None:
        self.client = NewClient(store)
        self.client.qr(lambda _client, data: tell("qr", text=data.decode()))
        # The only sign of a pairing that fails.
        self.client._NewClient__onLoginStatus = lambda _uuid, status: tell(
            "status", text=ctypes.string_at(status).decode()
        )
        on = self.client.event
        on(ConnectedEv)(lambda *_: tell("connected"))
        on(DisconnectedEv)(lambda *_: tell("disconnected"))
        on(PairStatusEv)(lambda _client, event: tell("paired", user=event.ID.User, device=event.ID.Device))
        on(LoggedOutEv)(lambda _client, event: tell("logged-out", on_connect=event.OnConnect, reason=int(event.Reason)))
        on(StreamReplacedEv)(lambda *_: tell("replaced"))
        on(StreamErrorEv)(lambda _client, event: tell("stream-error", code=event.Code))
        on(TemporaryBanEv)(lambda _client, event: tell("banned", code=int(event.Code), expire=int(event.Expire)))
        on(ConnectFailureEv)(lambda _client, event: tell("connect-failure", reason=int(event.Reason)))
        on(ClientOutdatedEv)(lambda *_: tell("outdated"))
        on(KeepAliveTimeoutEv)(lambda *_: tell("keepalive-timeout"))
        on(ReceiptEv)(self._on_receipt)
        on(MessageEv)(self._on_message)
        on(UndecryptableMessageEv)(lambda _client, event: tell("undecryptable", id=event.Info.ID))
        on(JoinedGroupEv)(lambda _client, event: tell("joined", group=event.GroupInfo.GroupName.Name))
        for kind, name in SHOWN_EVENTS.items():
            on(kind)(lambda _client, event, name=name: tell(name, **shown(event)))

    def run(self) -> None:
        """Connect, and obey until told to exit."""
        threading.Thread(target=self._obey, daemon=True).start()
        try:
            self.client.connect()
        except Exception as error:  # noqa: BLE001  (whatever it is, the test wants to hear of it)
            tell("connect-raised", text=str(error))
        tell("connect-returned")

    def _on_message(self, _client: object, event: Any) -> None:
        source, message = event.Info.MessageSource, event.Message
        edited = message.protocolMessage.editedMessage
        text = message.conversation or message.extendedTextMessage.text or edited.conversation
        if text:
            tell(
                "message",
                id=event.Info.ID,
                text=text,
                sender=source.Sender.User,
                is_from_me=source.IsFromMe,
                chat=source.Chat.User,
                is_edit=event.IsEdit,
                retries=event.RetryCount,
            )

    def _on_receipt(self, _client: object, event: Any) -> None:
        source = event.MessageSource
        sender = f"{source.Sender.User}:{source.Sender.Device}"
        ids = list(event.MessageIDs)
        tell("receipt", type=int(event.Type), ids=ids, chat=source.Chat.User, sender=sender)

    def _obey(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                getattr(self, command.pop("command"))(**command)
            except Exception as error:  # noqa: BLE001  (likewise)
                tell("command-failed", text=repr(error))
        os._exit(0)

    def send(self, to: str, text: str) -> None:
        """Send a text to a phone number, or to a group by its address."""
        tell("sent", id=self.client.send_message(_address(to), Message(conversation=text)).ID)

    def edit(self, to: str, message_id: str, text: str) -> None:
        """Give a message of its own another text."""
        tell("sent", id=self.client.edit_message(_address(to), message_id, Message(conversation=text)).ID)

    def pair_phone(self, pn: str) -> None:
        """Ask for a linking code."""
        tell("code", text=self.client.PairPhone(pn, True))

    def appear(self) -> None:
        """Be available; fails until the app state has brought the account's push name."""
        self.client.send_presence(Presence.AVAILABLE)
        tell("appeared")

    def look_up(self, pn: str) -> None:
        """Ask whether a phone number is on WhatsApp."""
        (answer,) = self.client.is_on_whatsapp(f"+{pn}")
        tell("looked-up", is_in=answer.IsIn, user=answer.JID.User)

    def call(self, method: str, arguments: list[object]) -> None:
        """Call any method of neonize's client, and show its result or its error."""
        tell("called", **carry_out(self.client, method, arguments))

    def log_out(self) -> None:
        """Unlink this device."""
        self.client.logout()
        tell("logged-out-by-itself")


def _address(name: str) -> JID:
    user, _, server = name.partition("@")
    return build_jid(user, server) if server else build_jid(user)


def main() -> None:
    """Aim at the simulator and run."""
    log = logging.getLogger("whatsmeow")
    log.addHandler(_TellLogLines(logging.WARNING))
    aim()
    Client(sys.argv[1]).run()
    threading.Event().wait()  # whoever started us decides when this ends


if __name__ == "__main__":
    main()
