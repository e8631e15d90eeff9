"""Implements the WhatsApp server: accepts clients, links them or logs them in, and handles their stanzas."""

from __future__ import annotations

import logging
import time

from simulator.accounts import Companion, Directory
from simulator.answers import QueryFailed, child_of, refused
from simulator.binary_xml import Attrs, BinaryXmlError, Node, node
from simulator.bookkeeping import Ledger
from simulator.calls import Calls
from simulator.connection import Connection, accept
from simulator.faults import UNPAIRED, Faults, Target
from simulator.gates import Step
from simulator.jid import SERVER
from simulator.linking import Candidate, Linking
from simulator.linking_code import CodeLinking
from simulator.newsletters import NEWSLETTER_SERVER, Newsletters
from simulator.noise import HandshakeError, ServerIdentity
from simulator.presences import Presences
from simulator.queries import Queries
from simulator.router import Router
from simulator.schemas import DevicePairingData
from simulator.transport import ConnectionEnded, FrameStream
from simulator.wire_format import WireError

log = logging.getLogger(__name__)

_NOT_LINKED = 401
#: Receipts that are not forwarded: they concern only the device itself.
_NOT_RELAYED = frozenset({"peer_msg", "hist_sync", "sender"})


class WhatsAppServer:
    """Serves connections, with the given accounts and faults."""

    def __init__(
        self,
        identity: ServerIdentity,
        directory: Directory,
        router: Router,
        linking: Linking,
        code_linking: CodeLinking,
        queries: Queries,
        faults: Faults,
        ledger: Ledger,
        *,
        presences: Presences,
        calls: Calls,
        newsletters: Newsletters,
    ) -> None:
        self._identity = identity
        self._directory = directory
        self._router = router
        self._linking = linking
        self._code_linking = code_linking
        self._queries = queries
        self._presences = presences
        self._calls = calls
        self._newsletters = newsletters
        self._faults = faults
        self._ledger = ledger
        self._connections: set[Connection] = set()
        self._candidates: set[Connection] = set()

    async def serve(self, stream: FrameStream) -> None:
        """Serve one client until its end. Return normally, whatever the client sends."""
        try:
            connection = await accept(stream, self._identity, lambda: self._faults.latency)
        except (HandshakeError, ConnectionEnded, WireError, TimeoutError) as error:
            self._ledger.rubbish += 1
            log.debug("no handshake: %s", error)
            stream.abort()
            return
        self._connections.add(connection)
        self._ledger.connections += 1
        try:
            await self._serve(connection)
        except ConnectionEnded as error:
            log.debug("connection ended: %s", error)
        except (HandshakeError, BinaryXmlError, WireError) as error:
            self._ledger.rubbish += 1
            log.warning("connection cut: %s", error)
            connection.abort()
        except Exception:
            # A stanza of one client must not stop the server for the others. The log has the traceback.
            log.exception("connection cut: a stanza could not be handled")
            connection.abort()
        finally:
            self._ledger.connections -= 1
            self._connections.discard(connection)
            connection.ended()

    def cut_all(self) -> None:
        """Cut every connection."""
        for connection in list(self._connections):
            connection.abort()

    def candidates(self, target: Target) -> list[Connection]:
        """Return the selected connections of clients that are not linked yet."""
        return [connection for connection in self._candidates if target.covers(_names(connection))]

    async def _serve(self, connection: Connection) -> None:
        data = connection.payload.device_pairing_data
        if data is not None:
            await self._serve_candidate(connection, data)
            return
        await self._faults.gates.passed(Step.LOGIN, lambda: connection.is_over)
        if connection.is_over:  # the client disconnected while it was held, which is no login
            return
        device = self._directory.companion_of(connection.client_static)
        if not self._refuse(connection, device) and device is not None:
            await self._serve_device(connection, device)
            return
        while True:  # until the client has read the reason and disconnected
            await connection.receive()

    # --- clients that are not linked yet

    async def _serve_candidate(self, connection: Connection, data: DevicePairingData) -> None:
        candidate = Candidate(connection, data)
        self._candidates.add(connection)
        failure = self._faults.login_failure(_names(connection))
        if failure is not None:
            connection.end(_failure(failure.reason, failure.code, failure.expire))
        else:
            self._linking.welcome(candidate)
        try:
            while True:
                stanza = await connection.receive()
                if stanza.tag == "iq":
                    self._answer_candidate(candidate, stanza)
        finally:
            self._candidates.discard(connection)
            self._linking.farewell(candidate)
            self._code_linking.farewell(candidate)

    def _answer_candidate(self, candidate: Candidate, query: Node) -> None:
        content = []
        registration = query.find("link_code_companion_reg")
        if registration is not None and registration.text("stage") == "companion_hello":
            content.append(self._code_linking.hello(candidate, registration))
        elif registration is not None:
            self._code_linking.finish(candidate.connection, registration)
        candidate.connection.send(node("iq", {"from": SERVER, "type": "result", "id": query.text("id")}, *content))

    # --- linked devices

    def _refuse(self, connection: Connection, device: Companion | None) -> bool:
        """Answer a login with a failure, if one is set."""
        if device is None:
            log.info("login of a device that is not linked (any more)")
            connection.end(_failure(_NOT_LINKED))
            return True
        failure = self._faults.login_failure(device.addresses)
        if failure is None:
            return False
        device.record.failed_logins += 1
        connection.end(_failure(failure.reason, failure.code, failure.expire))
        return True

    async def _serve_device(self, connection: Connection, device: Companion) -> None:
        previous = device.connection
        if previous is not None and not previous.is_over:
            device.record.overlaps += 1
            self.replace(device)
        self._presences.disconnected(device)  # subscriptions belong to a connection, and the previous one may linger
        interval = device.attach(connection)
        try:
            connection.send(
                node(
                    "success", {"t": int(time.time()), "lid": device.lid, "location": "sim", "props": 0, "creation": 0}
                )
            )
            device.send_queue(connection)
            while True:
                stanza = await connection.receive()
                device.record.stanzas += 1
                self._handle(connection, device, stanza)
        finally:
            device.detach(connection, interval)
            if device.connection is None:
                self._presences.disconnected(device)

    def replace(self, device: Companion) -> None:
        """End a device's connection as if another client had logged in."""
        if device.connection is not None and not device.connection.is_over:
            device.record.replaced += 1
            device.connection.end(node("stream:error", {}, node("conflict", {"type": "replaced"})))

    def _handle(self, connection: Connection, device: Companion, stanza: Node) -> None:
        if stanza.tag == "iq":
            self._handle_query(connection, device, stanza)
        elif stanza.tag == "message":
            self._handle_message(connection, device, stanza)
        elif stanza.tag == "receipt":
            self._handle_receipt(connection, device, stanza)
        elif stanza.tag == "ack":
            self._handle_ack(connection, device, stanza)
        elif stanza.tag == "presence":
            self._presences.take(device, stanza)
        elif stanza.tag == "chatstate":
            self._presences.type(device, stanza)
        elif stanza.tag == "call":
            self._calls.take(device, stanza)
        elif stanza.tag != "ib" and self._ledger.note_unknown(stanza.tag):
            log.warning("unknown stanza <%s>, ignored", stanza.tag)

    def _handle_query(self, connection: Connection, device: Companion, query: Node) -> None:
        namespace = query.text("xmlns")
        if namespace == "w:p" and self._faults.is_keepalive_muted(device.addresses):
            return

        asked = f"{namespace}/{child_of(query)}"
        failure = self._faults.query_failure(device.addresses, asked)

        def answer() -> None:
            if failure is not None:
                connection.send(refused(query, QueryFailed(failure.code, failure.text)))
            else:
                connection.send(self._queries.answer(device, query))

        if not self._faults.hold_query(device.addresses, asked, answer):
            answer()

    def _handle_message(self, connection: Connection, device: Companion, message: Node) -> None:
        cut = self._faults.drop_before_ack(device.addresses)
        refusal = self._faults.message_refusal(device.addresses)
        said: Attrs = {}
        if refusal is not None:
            said = {"error": refusal.code}
        elif cut is None or cut.is_taken:
            said = self._take_message(device, message)
        if cut is not None:
            log.info("connection of %s cut before the ack of message %s", device.jid, message.text("id"))
            connection.abort()
            return
        about: Attrs = {"class": "message", "id": message.text("id"), "from": message.jid("to"), "t": int(time.time())}
        connection.send(node("ack", {**about, **said}))

    def _take_message(self, device: Companion, message: Node) -> Attrs:
        """Route a message unless it is a repetition. Return the extra attributes of its ack."""
        counts, to = device.record.messages, message.jid("to")
        if to is not None and to.server == NEWSLETTER_SERVER:
            counts.sent += 1
            return self._newsletters.take(device, message)
        if message.find("participants") is None and message.text("category") != "peer":
            counts.answered += 1
        elif device.is_repeated(message.text("id")):
            counts.resent += 1
            return {}
        else:
            counts.sent += 1
        return self._router.message(device, message)

    def _handle_receipt(self, connection: Connection, device: Companion, receipt: Node) -> None:
        if self._is_cut_at(receipt, connection, device):
            return
        kind, counts = receipt.text("type"), device.record.messages
        confirmed = device.queue.confirm_receipt(receipt)
        counts.receipted += confirmed if kind != "retry" else 0
        counts.retry_receipted += kind == "retry"
        about: Attrs = {
            "class": "receipt",
            "id": receipt.text("id"),
            "from": receipt.attrs.get("to", SERVER),
            "participant": receipt.jid("participant"),
            "type": kind or None,
        }
        connection.send(node("ack", about))
        if kind == "view":
            self._newsletters.view(device.account, receipt)
        elif kind not in _NOT_RELAYED:
            self._router.receipt(device, receipt)

    def _handle_ack(self, connection: Connection, device: Companion, ack: Node) -> None:
        if self._is_cut_at(ack, connection, device):
            return
        if device.queue.confirm_ack(ack) and ack.text("class") == "message":
            device.record.messages.receipted += 1

    def _is_cut_at(self, confirmation: Node, connection: Connection, device: Companion) -> bool:
        """Return whether the connection is cut instead, so that the confirmed stanza is repeated."""
        is_meant = confirmation.tag == "receipt" or confirmation.text("class") in ("message", "receipt")
        is_meant = is_meant and device.queue.waits_for(confirmation)
        if not is_meant or not self._faults.drop_at_confirmation(device.addresses):
            return False
        log.info("connection of %s cut at the confirmation of %s", device.jid, confirmation.text("id"))
        connection.abort()
        return True


def _names(candidate: Connection) -> frozenset[str]:
    """Return the names of a client that is not linked yet."""
    return UNPAIRED | {candidate.caller} if candidate.caller else UNPAIRED


def _failure(reason: int, code: int | None = None, expire: int | None = None) -> Node:
    return node("failure", {"reason": reason, "code": code, "expire": expire, "t": int(time.time())})
