"""Holds all Signal sessions of one phone, by the device at the other end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from simulator.padding import pad, unpad
from simulator.prekeys import KeyRing, PreKeyBundle
from simulator.ratchet import Session, SignalError, initiate, respond
from simulator.schemas import Content, PreKeySignalMessage
from simulator.wire_format import WireError

log = logging.getLogger(__name__)

#: Both sides may begin at the same moment: older sessions stay readable.
_MOST_SESSIONS = 5


Peer = TypeVar("Peer", bound=Hashable)


class Conversations(Generic[Peer]):
    """Encrypts to and decrypts from peers; a peer is whatever names a device."""

    def __init__(self, keys: KeyRing, fetch: Callable[[Peer], PreKeyBundle | None]) -> None:
        self._keys = keys
        self._fetch = fetch
        self._sessions: dict[Peer, list[Session]] = {}

    def encrypt(self, peer: Peer, content: Content) -> tuple[str, bytes] | None:
        """Return the kind and the bytes for this peer; None if it has no prekeys to begin a session."""
        if peer not in self._sessions and not self.begin_anew(peer):
            return None
        return self._sessions[peer][0].encrypt(pad(content.encode()))

    def begin_anew(self, peer: Peer, bundle: PreKeyBundle | None = None) -> bool:
        """Start a new session with this bundle or one from the server. Return False if there is none."""
        bundle = bundle or self._fetch(peer)
        if bundle is None:
            return False
        self._remember(peer, initiate(self._keys, bundle))
        return True

    def decrypt(self, peer: Peer, kind: str, message: bytes) -> Content:
        """Return the content of a message. Raise SignalError if it cannot be read."""
        try:
            if kind == "pkmsg":
                return self._decrypt_introduction(peer, message)
            return self._decrypt_known(peer, message)
        except (WireError, ValueError) as error:
            raise SignalError(f"not a Signal message: {error}") from error

    def knows(self, peer: Peer) -> bool:
        """Return whether there is a session with this peer."""
        return peer in self._sessions

    def forget(self, peer: Peer) -> None:
        """Drop all sessions with this peer."""
        self._sessions.pop(peer, None)

    def damage(self, peer: Peer) -> None:
        """Damage all sessions with this peer, so that they read nothing; the peer still reads what they encrypt."""
        for session in self._sessions.get(peer, []):
            session.damage()

    def use_up(self, introduction: bytes) -> None:
        """Forget the one-time key that a pkmsg was begun with, so that it cannot begin a session."""
        try:
            self._keys.use_up(PreKeySignalMessage.decode(introduction[1:]).prekey_id)
        except WireError as error:
            log.info("a pkmsg that is garbled anyway: %s", error)

    def _decrypt_introduction(self, peer: Peer, message: bytes) -> Content:
        introduction = PreKeySignalMessage.decode(message[1:])
        base_key, inner = (introduction.base_key or b"")[1:], introduction.message or b""
        for session in self._sessions.get(peer, []):
            if session.base_key == base_key:
                return _read(session, inner)
        session = respond(self._keys, introduction)
        content = _read(session, inner)
        self._keys.use_up(introduction.prekey_id)
        self._remember(peer, session)
        return content

    def _decrypt_known(self, peer: Peer, message: bytes) -> Content:
        sessions = self._sessions.get(peer, [])
        reasons = []
        for session in sessions:
            try:
                content = _read(session, message)
            except SignalError as error:
                reasons.append(str(error))
                continue
            sessions.remove(session)
            sessions.insert(0, session)
            return content
        raise SignalError("; ".join(reasons) or "no session with this device")

    def _remember(self, peer: Peer, session: Session) -> None:
        self._sessions[peer] = [session, *self._sessions.get(peer, [])][:_MOST_SESSIONS]


def _read(session: Session, message: bytes) -> Content:
    return Content.decode(unpad(session.decrypt(message)))
