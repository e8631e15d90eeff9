"""Stores what the owner of a session writes; every transaction locks the session's row and checks the epoch."""

from collections.abc import Sequence
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from service.domain.errors import EpochRevoked, LeaseLost, NotFound, epoch_over
from service.domain.events import Event, NewEvent, PairingProgress
from service.domain.lease import Lease
from service.domain.pairing import PairingCode
from service.domain.records import Account, Session
from service.domain.session import Credentials, Desired, State, Transition
from service.ports.metrics import Metrics
from service.ports.sessions import Decide, Resume
from service.store.database import Connection, Database, Record, strip_nul
from service.store.event_rows import Encode, append, lock_log
from service.store.refusals import counts_refusals
from service.store.stale_backends import StaleBackends
from service.store.transitions import lock_session, read_session, write_transition


class PostgresOwnedSessions:
    """Implements ports.sessions.OwnedSessionStore on Postgres."""

    def __init__(
        self, database: Database, encode: Encode, stale_backends: StaleBackends, metrics: Metrics | None = None
    ) -> None:
        self._database = database
        self.metrics = metrics or Metrics()
        self._encode = encode
        self._stale_backends = stale_backends

    @counts_refusals("observe")
    async def observe(
        self, lease: Lease, decide: Decide, account: Account | None
    ) -> tuple[Session, Transition, Sequence[Event]]:
        """Write the transition that `decide` returns, the account if it is known, and the events."""
        async with self._database.transaction() as connection:
            await lock_log(connection, lease.session_id)
            row = await _lock_owned(connection, lease)
            transition, new = await write_transition(connection, lease.session_id, row, decide)
            if account is not None:
                known = (account.jid, account.lid, account.push_name, account.platform)
                await connection.run("write_account", lease.session_id, *map(strip_nul, known))
            events = await append(connection, self._encode, lease.session_id, lease.epoch, new)
            return await read_session(connection, lease.session_id), transition, events

    @counts_refusals("show_code")
    async def show_code(self, lease: Lease, code: PairingCode, identity: bytes) -> Sequence[Event]:
        """Bind the session to the identity key, and make the code the current one."""
        async with self._database.transaction() as connection:
            await lock_log(connection, lease.session_id)
            row = await _lock_owned(connection, lease)
            if row["identity_key"] not in (None, identity):
                # The other key is a dead process's, whose last write may still have stored the device.
                await connection.run("discard_identity", lease.session_id)
            await connection.run("bind_identity", lease.session_id, identity)
            await connection.run("show_code", lease.session_id, code.text, code.position, code.expire_time, lease.epoch)
            progress = NewEvent(PairingProgress(code.expire_time, code.position), row["now"])
            return await append(connection, self._encode, lease.session_id, lease.epoch, [progress])

    @counts_refusals("prepare")
    async def prepare(self, lease: Lease) -> Resume:
        """Return what a new process of this session resumes. No process of the session may run."""
        # First, so that stale backends cannot change what is read below.
        await self._stale_backends.end(lease)
        async with self._database.transaction() as connection:
            try:
                row = await _lock_owned(connection, lease)
            except NotFound:
                # The session was deleted; only its device may be left.
                await _delete_discarded(connection, lease.session_id)
                return Resume(wanted=False)
            await _delete_discarded(connection, lease.session_id)
            await connection.run("settle_interrupted", lease.session_id, lease.epoch)
            if not _is_due(row):
                return Resume(wanted=False)
            return await _resume(connection, lease, row)

    @counts_refusals("sweep")
    async def delete_discarded_devices(self, lease: Lease) -> None:
        """Delete the devices that the session discarded. No process of the session may run."""
        async with self._database.transaction() as connection:
            # A session that was deleted or deactivated may have left a device too.
            with suppress(NotFound, EpochRevoked):
                await _lock_owned(connection, lease)
            await _delete_discarded(connection, lease.session_id)


async def _lock_owned(connection: Connection, lease: Lease) -> Record:
    row = await lock_session(connection, lease.session_id)
    is_revoked = await connection.value("fence", lease.session_id, lease.epoch, lease.incarnation)
    if is_revoked is None or is_revoked:
        raise epoch_over(lease.session_id, lease.epoch, LeaseLost if is_revoked is None else EpochRevoked)
    return row


def _is_due(row: Record) -> bool:
    """Return whether the session may connect now; it may be claimed only to delete its device."""
    if row["desired_state"] == Desired.INACTIVE.value or row["state"] == State.FAILED.value:
        return False
    is_banned = row["state"] == State.SUSPENDED.value and row["next_attempt_at"] is not None
    return not is_banned or bool(row["next_attempt_at"] <= row["now"])


async def _resume(connection: Connection, lease: Lease, row: Record) -> Resume:
    proxy_url = row["proxy_url"]
    if row["device_jid"] is not None:
        if await connection.value("device_exists", row["device_jid"]):
            return Resume(wanted=True, jid=row["device_jid"], proxy_url=proxy_url)
        return Resume(wanted=True, missing=True)
    if row["identity_key"] is not None:
        # A process may have died after a scan was accepted and before it was recorded.
        for jid in await _unbound_devices(connection, {row["identity_key"]}):
            await connection.run("bind_device", lease.session_id, jid)
            return Resume(wanted=True, jid=jid, proxy_url=proxy_url)
    if row["credentials"] != Credentials.NONE.value:
        return Resume(wanted=True, missing=True)
    return Resume(wanted=True, proxy_url=proxy_url)


async def _unbound_devices(connection: Connection, identities: set[bytes]) -> list[str]:
    """Return the JIDs of devices with one of these identity keys that no session names."""
    return [
        row["jid"]
        for row in await connection.rows("unbound_devices")
        if _public_key(bytes(row["identity_key"])) in identities
    ]


def _public_key(private_key: bytes) -> bytes:
    """Return the public key of whatsmeow_device.identity_key, which is the private one (32 bytes)."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


async def _delete_discarded(connection: Connection, session_id: str) -> None:
    identities = {bytes(row["identity_key"]) for row in await connection.rows("discarded_identities", session_id)}
    if not identities:
        return
    # By key and never by JID: WhatsApp may have given the JID to another session's device since.
    for jid in await _unbound_devices(connection, identities):
        await connection.run("delete_device", jid)
    await connection.run("forget_discarded", list(identities))
