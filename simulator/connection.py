"""Exchanges stanzas with one client over an encrypted connection."""

from __future__ import annotations

import asyncio
import secrets
import zlib
from collections.abc import Callable

from simulator import binary_xml
from simulator.binary_xml import Node, node
from simulator.jid import SERVER
from simulator.noise import Cipher, HandshakeError, Responder, ServerIdentity
from simulator.schemas import ClientPayload
from simulator.transport import ConnectionEnded, FrameStream

HANDSHAKE_DEADLINE = 30.0
#: Seconds between the reason of an end and the close: a client that sees both at once may miss the reason.
GRACE = 0.25
_COMPRESSED = 2


async def accept(stream: FrameStream, identity: ServerIdentity, latency: Callable[[], float]) -> Connection:
    """Shake hands with a client. Raise HandshakeError or ConnectionEnded if it is not a client."""
    responder = Responder(identity)
    async with asyncio.timeout(HANDSHAKE_DEADLINE):
        stream.send(responder.hello(await stream.receive()))
        established = responder.finish(await stream.receive())
    payload = ClientPayload.decode(established.payload)
    return Connection(stream, established.client_static, payload, established.incoming, established.outgoing, latency)


class Connection:
    """An established connection. Sending never waits; stanzas arrive in the order in which they were sent."""

    def __init__(
        self,
        stream: FrameStream,
        client_static: bytes,
        payload: ClientPayload,
        incoming: Cipher,
        outgoing: Cipher,
        latency: Callable[[], float],
    ) -> None:
        self.client_static = client_static
        self.payload = payload
        self._stream = stream
        self._incoming = incoming
        self._outgoing = outgoing
        self._latency = latency
        self._next_send_at = 0.0
        self._requests: dict[str, asyncio.Future[Node]] = {}
        self._is_ending = False

    @property
    def is_over(self) -> bool:
        """Return whether the connection has ended or is ending, so that nothing sent now would be read."""
        return self._is_ending or self._stream.is_over

    @property
    def caller(self) -> str:
        """The user name that the client gave the proxy; empty if it gave none."""
        return self._stream.caller

    async def receive(self) -> Node:
        """Return the client's next stanza that is not an answer to `request`."""
        while True:
            stanza = _unwrap(self._incoming.decrypt(await self._stream.receive()))
            if not self._is_answer(stanza):
                return stanza

    def send(self, stanza: Node) -> None:
        """Send a stanza, after the configured latency."""
        if self.is_over:
            return
        loop = asyncio.get_running_loop()
        due = max(self._next_send_at, loop.time() + self._latency())
        if due <= loop.time():
            self._send_now(stanza)
            return
        self._next_send_at = due
        loop.call_at(due, self._send_now, stanza)

    def request(self, kind: str, namespace: str, *content: Node) -> asyncio.Future[Node]:
        """Send an iq to the client. The future yields the answer (result or error) or raises ConnectionEnded."""
        request_id = secrets.token_hex(8)
        answer = self.expect(request_id)
        self.send(node("iq", {"from": SERVER, "type": kind, "id": request_id, "xmlns": namespace}, *content))
        return answer

    def expect(self, name: str) -> asyncio.Future[Node]:
        """Return a future for a stanza of the client. `fulfil` resolves it; the end of the connection fails it."""
        expected = self._requests[name] = asyncio.get_running_loop().create_future()
        if self.is_over:
            self.ended()
        return expected

    def fulfil(self, name: str, stanza: Node) -> None:
        """Resolve the future that `expect` returned."""
        expected = self._requests.pop(name, None)
        if expected is not None and not expected.done():
            expected.set_result(stanza)

    def end(self, *farewell: Node) -> None:
        """Send the reason and close the connection once the client had time to read it."""
        for stanza in farewell:
            self.send(stanza)
        self._is_ending = True
        loop = asyncio.get_running_loop()
        loop.call_at(max(self._next_send_at, loop.time()) + GRACE, self._stream.close)

    def abort(self) -> None:
        """Cut the connection."""
        self._is_ending = True
        self._stream.abort()

    def ended(self) -> None:
        """Fail the open requests, because the connection has ended."""
        for answer in self._requests.values():
            if not answer.done():
                answer.set_exception(ConnectionEnded("the client went away without an answer"))
                answer.exception()  # mark as retrieved: a future without a waiter is no error
        self._requests.clear()

    def _send_now(self, stanza: Node) -> None:
        if not self._stream.is_over:
            self._stream.send(self._outgoing.encrypt(b"\x00" + binary_xml.encode(stanza)))

    def _is_answer(self, stanza: Node) -> bool:
        if stanza.tag != "iq" or stanza.text("type") not in ("result", "error"):
            return False
        self.fulfil(stanza.text("id"), stanza)
        return True


def _unwrap(plaintext: bytes) -> Node:
    if not plaintext:
        raise HandshakeError("empty frame")
    body = plaintext[1:]
    if plaintext[0] & _COMPRESSED:
        try:
            body = zlib.decompress(body)
        except zlib.error as error:
            raise binary_xml.BinaryXmlError(f"frame does not decompress: {error}") from error
    return binary_xml.decode(body)
