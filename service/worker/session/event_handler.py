"""Handles the library's events of one session: reports them to the node, and keeps what they say of the login."""

import datetime
from typing import Any

from neonize.proto import Neonize_pb2 as neonize

from service.domain.disconnect_policy import Cause
from service.pgrelay.ack_gate import AckGate
from service.worker.inbound import messages, translate
from service.worker.inbound.events import registry
from service.worker.process.log_forwarder import LogForwarder
from service.worker.process.session_end import SessionEnd
from service.worker.session.client import Client
from service.worker.session.connection_monitor import ConnectionMonitor, ConnectionPolling
from service.worker.session.ephemeral_throttle import EphemeralThrottle
from service.worker.session.login_state import LoginState
from service.worker.session.outbox import Outbox
from zap.worker.v1 import frames_pb2, inbound_pb2

_DELETION_LINGER_S = 0.4


class EventHandler:
    """Handles events, one after another, on the library's threads."""

    def __init__(
        self,
        client: Client,
        login: LoginState,
        gate: AckGate,
        monitor: ConnectionMonitor,
        outbox: Outbox,
        log: LogForwarder,
        end: SessionEnd,
    ) -> None:
        self._client = client
        self._login = login
        self._gate = gate
        self._monitor = monitor
        self._outbox = outbox
        self._log = log
        self._end = end
        self.ephemeral = EphemeralThrottle(outbox.offer)
        self._polling = ConnectionPolling(client.is_up, self.check_push_name, monitor)
        self._is_first_login_done = False
        self._push_name = ""

    def handle(self, event: Any) -> None:
        """Handle one event. Return when all frames of a durable one are committed."""
        match event:
            case inbound_pb2.InboundMessage():
                self._on_message(event)
            case neonize.UndecryptableMessage():
                self._on_heard()
                self._commit_one(messages.unreadable(event, self._client.lid_of))
            case neonize.Receipt():
                self._on_heard()
                self._outbox.commit(translate.receipts(event, self._client.lid_of))
            case neonize.Connected():
                self._on_connected()
            case neonize.Disconnected():
                self._is_first_login_done = True
                self._monitor.disconnected()
                self._outbox.send(frames_pb2.Frame(disconnected=frames_pb2.Disconnected()))
            case neonize.KeepAliveTimeout():
                self._monitor.disconnected()
                self._outbox.send(frames_pb2.Frame(keep_alive_timeout=frames_pb2.KeepAliveTimeout()))
            case neonize.KeepAliveRestored():
                self._monitor.connected()
                self._outbox.send(frames_pb2.Frame(keep_alive_restored=frames_pb2.KeepAliveRestored()))
            case neonize.PairStatus():
                self._on_pair_status(event)
            case neonize.StreamError():
                self._log.write("warning", "whatsmeow", f"stream error {event.Code}; the library reconnects")
            case _:
                self._on_inbound_event(event)

    def _on_message(self, event: inbound_pb2.InboundMessage) -> None:
        self._on_heard()
        if self._outbox.commit(messages.frames(event, self._client.lid_of), self._gate.wait_for_commit):
            self._gate.log()

    def _on_inbound_event(self, event: Any) -> None:
        if (durable := registry.DURABLE.get(type(event))) is not None:
            self._on_heard()
            self._commit_one(durable(event))
        elif (ephemeral := registry.EPHEMERAL.get(type(event))) is not None:
            self.ephemeral.submit(*ephemeral(event))
        else:
            self._on_terminal_event(event)

    def _on_terminal_event(self, event: Any) -> None:
        match event:
            case neonize.LoggedOut() if not self._login.is_device_saved:
                self._end.end(Cause.PAIRING_REFUSED, neonize.ConnectFailureReason.Name(event.Reason))
            case neonize.LoggedOut():
                # whatsmeow raises the event before it deletes its rows.
                self._end.end_with(translate.logged_out(event), linger=_DELETION_LINGER_S)
            case neonize.StreamReplaced():
                self._end.end(Cause.STREAM_REPLACED)
            case neonize.TemporaryBan():
                self._end.end_with(translate.temporary_ban(event, datetime.datetime.now(datetime.UTC)))
            case neonize.ClientOutdated():
                self._end.end(Cause.CLIENT_OUTDATED)
            case neonize.ConnectFailure():
                self._end.end_with(translate.connect_failure(event))

    def _on_heard(self) -> None:
        """Treat the first inbound event as the end of the login.

        The library raises "connected" only after two queries, which on a busy machine wait behind all the messages
        queued for this device. After a disconnection an inbound event may belong to the old connection.
        """
        self._monitor.heard()
        if not self._is_first_login_done:
            self._on_connected()

    def _on_connected(self) -> None:
        self._is_first_login_done = True
        # The first message has reported the connection already; the library's own event follows it.
        is_reported = self._monitor.is_up
        self._login.is_device_saved = self._login.may_receive = True
        self._login.reconnect_error = ""
        self._monitor.connected()
        self._polling.start()
        if is_reported:
            return
        device = self._client.device()
        self._push_name = device.PushName
        self._outbox.send(translate.connected(device))

    def _on_pair_status(self, event: Any) -> None:
        if event.Status != neonize.PairStatus.SUCCESS:
            self._end.end_soon(self._login.ended(Cause.SCAN_REJECTED, event.Error))
            return
        self._login.is_device_saved = self._login.may_receive = True
        self._monitor.scanned()
        self._outbox.send(translate.device_saved(event, translate.lid_of(self._client.device())))

    def check_push_name(self) -> None:
        """Report a changed account name, which arrives after the login and for which neonize has no event."""
        if (name := self._client.device().PushName) != self._push_name:
            self._push_name = name
            self._outbox.send(frames_pb2.Frame(push_name=frames_pb2.PushName(name=name)))

    def _commit_one(self, frame: frames_pb2.Frame | None) -> None:
        self._outbox.commit(() if frame is None else (frame,))
