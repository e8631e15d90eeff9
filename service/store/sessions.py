"""Stores sessions as callers see and change them."""

import hashlib
import json
from collections.abc import Sequence

from service.domain.caller import Caller
from service.domain.errors import AlreadyExists, Conflict, FailedPrecondition, FieldViolation, InvalidArgument
from service.domain.events import Event
from service.domain.records import Pairing, Session
from service.domain.session import Credentials, Directive, State, Transition
from service.ports.sessions import Changes, Decide, NewSession, SessionFilter
from service.store import rows
from service.store.database import Connection, Database
from service.store.event_rows import Encode, append, lock_log
from service.store.transitions import lock_session, read_session, write_transition


class PostgresSessions:
    """Implements ports.sessions.SessionStore on Postgres, for one caller."""

    def __init__(self, caller: Caller, database: Database, encode: Encode) -> None:
        self._caller = caller
        self._database = database
        self._encode = encode

    async def create(self, new: NewSession) -> Session:
        """Insert and return a session; return the earlier one if the request is repeated."""
        async with self._database.transaction() as connection:
            asked = (new.session_id, new.name, new.user_id, dict(new.labels), new.proxy_url)
            key = (new.request_id or None, _fingerprint(new))
            if await connection.value("insert_session", *asked, *key) is None:
                return await _earlier_session(connection, new)
            return await read_session(connection, new.session_id)

    async def get(self, session_id: str) -> Session:
        """Return a session. Raises NotFound."""
        async with self._database.autocommit() as connection:
            return await read_session(connection, session_id)

    async def list(self, chosen: SessionFilter, after: str, limit: int) -> Sequence[Session]:
        """Return at most `limit` sessions with an id after `after`, in order."""
        states = [state.value for state in chosen.states]
        async with self._database.autocommit() as connection:
            found = await connection.rows("list_sessions", after, chosen.user_id, states, dict(chosen.labels), limit)
        return [rows.session(row) for row in found]

    async def update(self, session_id: str, changes: Changes, etag: str) -> Session:
        """Change the fields that callers own."""
        labels = None if changes.labels is None else dict(changes.labels)
        async with self._database.transaction() as connection:
            row = await lock_session(connection, session_id)
            if etag and etag != str(row["version"]):
                raise Conflict(
                    f"session {session_id!r} has changed since etag {etag!r}; read it again",
                    metadata={"session_id": session_id, "etag": etag},
                )
            if changes.proxy_url not in (None, row["proxy_url"]) and row["state"] != State.CONNECTED.value:
                # A connected process keeps the old proxy; its owner replaces the process when it disconnects.
                await connection.run("revoke_unless_code_is_shown", session_id)
            await connection.run("update_session", session_id, changes.name, changes.user_id, labels, changes.proxy_url)
            return await read_session(connection, session_id)

    async def delete(self, session_id: str, *, force: bool) -> None:
        """Delete a session; its device's rows are deleted when no process can write them any more."""
        async with self._database.transaction() as connection:
            row = await lock_session(connection, session_id)
            if row["credentials"] != Credentials.NONE.value and not force:
                raise FailedPrecondition(
                    f"session {session_id!r} is paired: the device would stay linked on the phone. Call Logout first,"
                    " or delete with force.",
                    reason="SESSION_PAIRED",
                    metadata={"session_id": session_id},
                )
            await connection.run("discard_identity", session_id)
            await connection.run("revoke_epoch", session_id)
            await connection.run("delete_session", session_id)

    async def decide(self, session_id: str, decide: Decide) -> tuple[Session, Transition, Sequence[Event]]:
        """Write the transition that `decide` returns for the session's condition."""
        async with self._database.transaction() as connection:
            await lock_log(connection, session_id)
            row = await lock_session(connection, session_id)
            transition, new = await write_transition(connection, session_id, row, decide)
            if transition.directive is not Directive.CONTINUE:
                await connection.run("revoke_epoch", session_id)
            epoch = await connection.value("current_epoch", session_id) or 0
            events = await append(connection, self._encode, session_id, epoch, new)
            return await read_session(connection, session_id), transition, events

    async def pairing(self, session_id: str) -> tuple[Session, Pairing]:
        """Return the session with its current or last pairing."""
        async with self._database.autocommit() as connection:
            found = await read_session(connection, session_id)
            return found, rows.pairing(await connection.row("get_pairing", session_id))


async def _earlier_session(connection: Connection, new: NewSession) -> Session:
    """Return the session that the same request made earlier. Raises AlreadyExists or InvalidArgument."""
    earlier = await connection.row("session_by_request", new.request_id) if new.request_id else None
    if earlier is None:
        raise AlreadyExists(
            f"there is a session {new.session_id!r} already",
            reason="SESSION_ALREADY_EXISTS",
            metadata={"session_id": new.session_id},
        )
    if bytes(earlier["create_fingerprint"]) != _fingerprint(new):
        wrong = f"was used for session {earlier['session_id']!r} with another content"
        raise InvalidArgument([FieldViolation("request_id", wrong)], reason="REQUEST_ID_REUSED")
    return await read_session(connection, earlier["session_id"])


def _fingerprint(new: NewSession) -> bytes:
    """Return a digest of the request's content; equal requests have equal digests."""
    asked = [new.session_id, new.name, new.user_id, sorted(new.labels.items()), new.proxy_url]
    return hashlib.sha256(json.dumps(asked).encode()).digest()
