"""The store on a real Postgres: what it fences, binds, refuses and keeps in order."""

import asyncio
import base64
import hashlib
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from service.domain import observations as seen
from service.domain.caller import ANONYMOUS
from service.domain.disconnect_policy import Cause
from service.domain.errors import (
    AlreadyExists,
    Conflict,
    EpochRevoked,
    FailedPrecondition,
    InvalidArgument,
    LeaseLost,
    NotFound,
    Unavailable,
)
from service.domain.events import NewEvent
from service.domain.fleet_counts import FleetCounts
from service.domain.lease import Announcement, Lease, LeaseOwner, Node, Renewal
from service.domain.pairing import PairingCode, PairingOutcome
from service.domain.placement import Candidate
from service.domain.records import Account, MessageState, NewMessage, OutboundMessage, Outcome
from service.domain.send_failures import SendFailure
from service.domain.session import Activate, Deactivate, Desired, Input, ProcessStarted, Restart, State, reduce
from service.eventlog.inbound import PostgresEventLog
from service.ports.sessions import Changes, Decide, NewSession, SessionFilter
from service.protocol.events import encode_payload
from service.store.database import Database
from service.store.leases import PostgresLeases
from service.store.messages import MAX_QUEUED, PostgresMessages, PostgresSendQueue
from service.store.owned import PostgresOwnedSessions
from service.store.sessions import PostgresSessions
from service.store.stale_backends import StaleBackends
from tests.contents import text_content
from tests.tcp_proxy import Line, TcpProxy
from zap.v1 import event_pb2

NODE = uuid.uuid4()
OTHER_NODE = uuid.uuid4()
HERE, THERE = Node(NODE, "here", "127.0.0.1:1"), Node(OTHER_NODE, "there", "127.0.0.1:2")
TTL = 30.0
JID = "4915100000001:3@s.whatsapp.net"


def secret_of(request_id: str) -> bytes:
    """The secret of a message that `Store.accept` stores."""
    return hashlib.sha256(request_id.encode()).digest()


class Store:
    """Everything of the store on one database, and the few steps that tests repeat."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.sessions = PostgresSessions(ANONYMOUS, database, encode_payload)
        self.owned = PostgresOwnedSessions(database, encode_payload, StaleBackends(database, is_pooled=False))
        self.refused: list[tuple[str, NewEvent, str]] = []
        self.events = PostgresEventLog(database, encode_payload, self._refuse)
        self.leases = PostgresLeases(database, database)
        self.messages = PostgresMessages(ANONYMOUS, database)
        self.send_queue = PostgresSendQueue(database)

    async def accept(
        self, lease: Lease, request_id: str, to: str = "x", fingerprint: bytes = b"f", *, begin: bool = True
    ) -> tuple[OutboundMessage, bool]:
        new = NewMessage(request_id, to, text_content(request_id), fingerprint)
        return await self.messages.accept(lease, new, secret_of(request_id), begin=begin)

    def _refuse(self, session_id: str, event: NewEvent, error: Exception) -> None:
        self.refused.append((session_id, event, type(error).__name__))

    async def create(self, session_id: str = "anna", request_id: str = "", name: str = "Anna") -> None:
        await self.sessions.create(NewSession(session_id, name, "user-1", {"team": "red"}, "", request_id))

    async def wish(self, session_id: str, wish: Input) -> None:
        await self.sessions.decide(session_id, by(wish))

    async def claim(self, node: uuid.UUID, limit: int) -> list[str]:
        """Of both queues, pairings first."""
        pairings = await self.leases.claim(node, "n", TTL, limit, pairings=True)
        return [*pairings, *await self.leases.claim(node, "n", TTL, limit - len(pairings), pairings=False)]

    async def own(self, session_id: str = "anna", node: uuid.UUID = NODE) -> Lease:
        assert session_id in await self.claim(node, 100)
        return await self.leases.begin_epoch(session_id, node, TTL)

    async def observe(self, lease: Lease, cause: Input, account: Account | None = None) -> None:
        await self.owned.observe(lease, by(cause), account)

    async def expire(self, session_id: str = "anna") -> None:
        await self.execute("UPDATE zap.lease SET expires_at = now() - interval '1 s' WHERE session_id = $1", session_id)
        # As the next renewal of its node would say.
        await self.execute("UPDATE zap.node SET heard_until = NULL")
        await self.be_due_for(1.0, session_id)

    async def be_due_for(self, seconds: float, session_id: str = "") -> None:
        """Have nothing be written about a session that is nobody's (or all of them) for so long."""
        await self.execute(
            "UPDATE zap.session SET update_time = clock_timestamp() - make_interval(secs => $1)"
            " WHERE $2 IN ('', session_id)",
            seconds,
            session_id,
        )

    async def queue(self) -> list[str]:
        """Sessions that are to be claimed, in their order."""
        rows = await self.fetch("SELECT session_id FROM zap.session_due ORDER BY is_pairing DESC, turn")
        return [row["session_id"] for row in rows]

    async def execute(self, sql: str, *arguments: object) -> None:
        async with self.database.transaction() as connection:
            await connection._raw.execute(sql, *arguments)

    async def fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        async with self.database.transaction() as connection:
            rows: list[asyncpg.Record] = await connection._raw.fetch(sql, *arguments)
            return rows


def by(cause: Input) -> Decide:
    return lambda condition, now: reduce(condition, cause, now)


def message(number: int) -> NewEvent:
    received = event_pb2.MessageReceived(message_id=f"M{number}", text=f"text {number}", raw=b"raw")
    told = event_pb2.Event(type=event_pb2.Event.TYPE_MESSAGE_RECEIVED, message_received=received)
    origin = f"message {number:8}".encode()
    return NewEvent(seen.InboundEvent("MESSAGE_RECEIVED", told.SerializeToString()), datetime.now(UTC), origin)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    database = Database(database_url, name="test")
    await database.open()
    yield Store(database)
    await database.close()


@pytest.fixture
async def device_table(store: Store) -> None:
    """As much of whatsmeow's table as we read; the real one is used by the end-to-end tests."""
    await store.execute("CREATE TABLE whatsmeow_device (jid text PRIMARY KEY, identity_key bytea NOT NULL)")


async def save_device(store: Store, jid: str = JID) -> bytes:
    """As whatsmeow does at a scan; returns the public identity key."""
    key = X25519PrivateKey.generate()
    await store.execute("INSERT INTO whatsmeow_device VALUES ($1, $2)", jid, key.private_bytes_raw())
    return key.public_key().public_bytes_raw()


def code(position: int = 1) -> PairingCode:
    return PairingCode("secret", position, datetime.now(UTC) + timedelta(seconds=60))


# --- what callers do --------------------------------------------------------------------------------------------


async def test_the_same_request_creates_once(store: Store) -> None:
    await store.create(request_id="r1")
    await store.create(request_id="r1")
    with pytest.raises(InvalidArgument) as reused:
        await store.create(request_id="r1", name="Berta")
    assert reused.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(AlreadyExists):
        await store.create(request_id="r2")
    assert [s.name for s in await store.sessions.list(SessionFilter(), "", 10)] == ["Anna"]


async def test_a_create_that_is_repeated_after_an_update_gives_the_session_as_it_is_now(store: Store) -> None:
    request = NewSession("anna", "Anna", "user-1", {"team": "red", "site": "b"}, "http://u:p@proxy:8080", "r1")
    await store.sessions.create(request)
    await store.sessions.update("anna", Changes(name="Berta", labels={}, proxy_url=""), "")
    assert (await store.sessions.create(request)).name == "Berta"
    with pytest.raises(InvalidArgument):
        await store.sessions.create(replace(request, name="Berta"))


async def test_twenty_creates_at_once_make_one_session(store: Store) -> None:
    results = await asyncio.gather(*(store.create(request_id=f"r{n}") for n in range(20)), return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert all(isinstance(result, AlreadyExists) for result in results if result is not None)


async def test_lists_in_order_with_every_filter(store: Store) -> None:
    for name in ("b", "a", "c"):
        await store.create(name)
    await store.wish("b", Activate())
    everything = await store.sessions.list(SessionFilter(), "", 10)
    assert [session.session_id for session in everything] == ["a", "b", "c"]
    assert [s.session_id for s in await store.sessions.list(SessionFilter(), "a", 1)] == ["b"]
    assert [s.session_id for s in await store.sessions.list(SessionFilter(states=(State.PAIRING,)), "", 9)] == ["b"]
    assert [s.session_id for s in await store.sessions.list(SessionFilter(labels={"team": "red"}), "", 9)] == [
        "a",
        "b",
        "c",
    ]
    assert not await store.sessions.list(SessionFilter(labels={"team": "blue"}), "", 9)
    assert not await store.sessions.list(SessionFilter(user_id="somebody"), "", 9)


async def test_lists_by_the_state_that_it_shows(store: Store, device_table: None) -> None:
    await connected(store)

    async def found(*states: State) -> list[State]:
        return [session.condition.state for session in await store.sessions.list(SessionFilter(states=states), "", 9)]

    assert await found(State.CONNECTED) == [State.CONNECTED]
    assert await found(State.RECONNECTING, State.FAILED) == []
    await store.expire()
    assert await found(State.CONNECTED) == []
    assert await found(State.RECONNECTING, State.FAILED) == [State.RECONNECTING]


async def test_an_old_etag_changes_nothing(store: Store) -> None:
    await store.create()
    before = await store.sessions.get("anna")
    after = await store.sessions.update("anna", Changes(name="Berta", labels={}), before.etag)
    assert (after.name, after.labels, after.user_id) == ("Berta", {}, "user-1")
    with pytest.raises(Conflict):
        await store.sessions.update("anna", Changes(name="Carla"), before.etag)
    assert (await store.sessions.get("anna")).name == "Berta"


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.sessions.get("nobody")
    with pytest.raises(NotFound):
        await store.sessions.update("nobody", Changes(name="x"), "")
    with pytest.raises(NotFound):
        await store.sessions.delete("nobody", force=True)
    with pytest.raises(NotFound):
        await store.wish("nobody", Activate())


# --- leases and the fence ---------------------------------------------------------------------------------------


async def test_a_session_is_claimed_once_however_many_ask(store: Store) -> None:
    for number in range(30):
        await store.create(f"s{number}")
        await store.wish(f"s{number}", Activate())
    claims = await asyncio.gather(*(store.claim(uuid.uuid4(), 100) for _ in range(8)))
    claimed = [session_id for claim in claims for session_id in claim]
    assert sorted(claimed) == sorted(f"s{number}" for number in range(30))


async def test_nobody_claims_what_is_not_wanted_or_not_due(store: Store) -> None:
    await store.create()
    assert not await store.claim(NODE, 10)
    await store.wish("anna", Activate())
    await store.execute("UPDATE zap.session SET next_attempt_at = now() + interval '1 h'")
    assert not await store.claim(NODE, 10)
    due = (await store.leases.fleet_counts(NODE)).next_due
    assert due is not None
    assert 3590 < due <= 3600


async def test_pairings_are_claimed_first_then_what_was_asked_for_then_who_was_active_last(store: Store) -> None:
    """And what keeps failing last, however active it was before."""
    for name, active in (("old", 50), ("quiet", 60), ("busy", 5), ("fails", 1)):
        await paired(store, name, seconds_ago=active)
    # It was paired long ago, and talks all the time.
    await store.execute("UPDATE zap.session SET paired_at = now() - interval '1 year' WHERE session_id = 'busy'")
    await store.execute("UPDATE zap.session SET last_acknowledged_send_at = now() WHERE session_id = 'old'")
    await store.execute("UPDATE zap.session SET attempts = 5 WHERE session_id = 'fails'")
    await store.execute("UPDATE zap.session SET state = 'RECONNECTING', attempts = greatest(attempts, 1)")
    for name in ("z-first", "a-second"):
        await store.create(name)
        await store.wish(name, Activate())
    await paired(store, "asked", seconds_ago=9999)
    await store.wish("asked", Deactivate())
    await store.wish("asked", Activate())
    order = ["z-first", "a-second", "asked", "old", "busy", "quiet", "fails"]
    assert await store.queue() == order
    assert await store.leases.claim(NODE, "n", TTL, 2, pairings=False) == order[2:4]
    assert await store.leases.claim(NODE, "n", TTL, 1, pairings=True) == order[:1]
    assert await store.claim(NODE, 2) == [order[1], order[4]]
    assert await store.leases.claim(NODE, "n", TTL, 9, pairings=True) == []
    assert await store.leases.claim(NODE, "n", TTL, 9, pairings=False) == order[5:]
    assert await store.queue() == []


async def test_a_count_counts_everything_that_is_wanted_once(store: Store) -> None:
    assert await store.leases.fleet_counts(NODE) == FleetCounts()
    for name in ("connected", "silent", "due", "waiting", "mine", "banned", "given-up"):
        await paired(store, name, seconds_ago=1)
    await store.create("never-wanted")
    await store.create("pairing")
    await store.wish("pairing", Activate())
    for name in ("connected", "silent", "waiting"):
        await claim_one(store, name, OTHER_NODE)
    await claim_one(store, "mine", NODE)
    await store.execute("UPDATE zap.session SET state = 'CONNECTED' WHERE session_id IN ('connected', 'silent', 'due')")
    await store.execute("UPDATE zap.session SET state = 'FAILED' WHERE session_id = 'given-up'")
    await store.execute(
        "UPDATE zap.session SET state = 'SUSPENDED', next_attempt_at = now() + interval '1 h'"
        " WHERE session_id = 'banned'"
    )
    await store.execute(
        "UPDATE zap.lease SET renewed_at = now() - interval '8 s', expires_at = now() + interval '2 s'"
        " WHERE session_id = 'silent'"
    )
    await store.execute("UPDATE zap.session SET next_attempt_at = now() WHERE session_id = 'waiting'")
    await store.be_due_for(1.0)
    counts = await store.leases.fleet_counts(NODE)
    assert (counts.due, counts.silent) == (1, 1)
    assert (counts.waiting, counts.pairings, counts.leftovers) == (1, 1, False)
    assert counts.away == 3
    assert counts.next_due is not None
    assert 1 < counts.next_due <= 2, "the silent one's lease ends first"
    # Our own lease is kept by ourselves: it becomes due by nothing that we would have to wait for.
    await store.execute("DELETE FROM zap.session WHERE session_id <> 'mine'")
    assert await store.leases.fleet_counts(NODE) == FleetCounts()


async def test_who_claims_a_session_vouches_for_nothing_before_its_own_process_connects(
    store: Store, device_table: None
) -> None:
    async def shown() -> tuple[State, str]:
        session = await store.sessions.get("anna")
        return session.condition.state, session.condition.reason

    old = await connected(store)
    assert await shown() == (State.CONNECTED, "")
    last = (await store.sessions.get("anna")).evidence.last_connected
    await store.expire()
    assert await shown() == (State.RECONNECTING, "NODE_STOPPED")
    assert await store.claim(OTHER_NODE, 1) == ["anna"]
    assert await shown() == (State.RECONNECTING, "NODE_STOPPED"), "claimed, and not even begun"
    assert (await store.leases.renew(Announcement(THERE, 5), TTL)).renewed
    new = await store.leases.begin_epoch("anna", OTHER_NODE, TTL)
    assert await shown() == (State.RECONNECTING, "NODE_STOPPED"), "begun, and not started"
    assert (await store.sessions.get("anna")).evidence.last_connected == pytest.approx(last, abs=timedelta(seconds=5))
    await store.observe(new, ProcessStarted())
    await store.observe(new, seen.Connected(JID, "", ""), Account(jid=JID))
    assert await shown() == (State.CONNECTED, "")
    assert new.epoch == old.epoch + 1


async def test_a_session_waits_for_its_turn_until_a_process_of_it_is_started(store: Store) -> None:
    async def waits() -> bool:
        return (await store.sessions.get("anna")).waits_for_start

    await paired(store, "anna", seconds_ago=1)
    assert await waits(), "no node owns it"
    (listed,) = await store.sessions.list(SessionFilter(), "", 9)
    assert listed.waits_for_start
    await claim_one(store, "anna", NODE)
    lease = await store.leases.begin_epoch("anna", NODE, TTL)
    assert not await waits(), "it was claimed on a turn"
    await store.observe(lease, ProcessStarted())
    await store.observe(lease, seen.Ended(Cause.PROCESS_DIED))
    assert await waits(), "the next attempt is due"
    await store.execute("UPDATE zap.session SET next_attempt_at = now() + interval '1 min'")
    assert not await waits(), "the next attempt is planned, and not due"
    await store.execute("UPDATE zap.session SET next_attempt_at = now()")
    await store.observe(await store.leases.begin_epoch("anna", NODE, TTL), ProcessStarted())
    assert not await waits()
    await store.expire("anna")
    assert await waits()
    await store.wish("anna", Deactivate())
    assert not await waits()


async def test_a_view_that_another_node_has_just_changed_is_an_outage_of_one_try(store: Store) -> None:
    """In a transaction asyncpg cannot prepare the statement anew, and says so with an error of its own."""
    await store.create()
    await store.wish("anna", Activate())
    other = Database(store.database._url, name="migrates")
    await other.open()
    async with other.transaction() as connection:
        view = await connection._raw.fetchval("SELECT pg_get_viewdef('zap.session_now')")
        wider = f"SELECT n.*, 1 AS one FROM ({view[:-1]}) n"  # noqa: S608 - the view's own definition
        await connection._raw.execute(f"CREATE OR REPLACE VIEW zap.session_now AS {wider}")
    await other.close()
    with pytest.raises(Unavailable) as outdated:
        await store.wish("anna", Deactivate())
    assert outdated.value.metadata == {"cause": "InvalidCachedStatementError"}
    await store.wish("anna", Deactivate())
    assert (await store.sessions.get("anna")).condition.desired is Desired.INACTIVE


async def paired(store: Store, session_id: str, seconds_ago: float) -> None:
    """A session that is wanted and nobody's, paired and active for the last time so long ago."""
    await store.create(session_id)
    await store.wish(session_id, Activate())
    await store.execute(
        "UPDATE zap.session SET state = 'CONNECTING', credentials = 'CONFIRMED', identity_key = $2,"
        " paired_at = now() - make_interval(secs => $3), last_inbound_at = now() - make_interval(secs => $3)"
        " WHERE session_id = $1",
        session_id,
        uuid.uuid4().bytes * 2,
        float(seconds_ago),
    )


async def claim_one(store: Store, session_id: str, node: uuid.UUID) -> None:
    await store.execute(
        "INSERT INTO zap.lease AS l (session_id, incarnation, node, renewed_at, expires_at)"
        " VALUES ($1, $2, 'node', now(), now() + interval '30 s') ON CONFLICT (session_id) DO UPDATE"
        " SET incarnation = excluded.incarnation, renewed_at = now(), expires_at = excluded.expires_at",
        session_id,
        node,
    )


async def test_a_stale_epoch_writes_nothing(store: Store) -> None:
    await store.create()
    await store.wish("anna", Activate())
    old = await store.own()
    await store.expire()
    new = await store.own(node=OTHER_NODE)
    assert new.epoch == old.epoch + 1
    with pytest.raises(LeaseLost):
        await store.observe(old, seen.Connected(JID, "", ""), Account(jid=JID))
    with pytest.raises(LeaseLost):
        await store.owned.show_code(old, code(), bytes(32))
    with pytest.raises(LeaseLost):
        await store.accept(old, "r1", "x@s.whatsapp.net", b"f")
    with pytest.raises(LeaseLost):
        await store.leases.begin_epoch("anna", NODE, TTL)
    assert (await store.sessions.get("anna")).condition.state is State.PAIRING
    with pytest.raises(LeaseLost):
        await store.events.append(old, [message(1)])


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_a_process_does_not_go_on_for_a_wish_that_came_after_its_own(
    store: Store, device_table: None, is_deleted: bool
) -> None:
    old = await connected(store)
    if is_deleted:
        await store.sessions.delete("anna", force=True)
        await store.create()
    else:
        await store.wish("anna", Deactivate())
    await store.wish("anna", Activate())
    wished = (await store.sessions.get("anna")).condition
    to_stop = await store.leases.sessions_to_stop(NODE)
    assert list(to_stop) == ["anna"], "its process must end, though the session is wanted"
    with pytest.raises(EpochRevoked):
        await store.observe(old, seen.Connected(JID, "", ""), Account(jid=JID))
    with pytest.raises(EpochRevoked):
        await store.owned.show_code(old, code(), bytes(32))
    with pytest.raises(LeaseLost):
        await store.accept(old, "r1", "x@s.whatsapp.net", b"f")
    assert (await store.sessions.get("anna")).condition == wished
    assert await store.leases.renew(Announcement(HERE, 5), TTL) == Renewal([old], []), "it steps down with permits"

    new = await store.leases.begin_epoch("anna", NODE, TTL)
    assert not await store.leases.sessions_to_stop(NODE)
    assert (await store.owned.prepare(new)).jid == ("" if is_deleted else JID)
    await store.observe(new, ProcessStarted())


async def test_a_restart_ends_the_process_of_whoever_owns_it_and_does_not_hear_of_it(
    store: Store, device_table: None
) -> None:
    old = await connected(store)
    await store.wish("anna", Restart())
    wished = (await store.sessions.get("anna")).condition
    assert (wished.state, wished.reason) == (State.RECONNECTING, "PROCESS_REPLACED")
    assert list(await store.leases.sessions_to_stop(NODE)) == ["anna"]
    with pytest.raises(EpochRevoked):
        await store.observe(old, seen.Ended(Cause.STOPPED))
    with pytest.raises(LeaseLost):
        await store.accept(old, "r1", "x@s.whatsapp.net", b"f")
    assert len((await store.events.append(old, [message(1)])).events) == 1, "its process stops gently"
    assert (await store.sessions.get("anna")).condition == wished
    new = await store.leases.begin_epoch("anna", NODE, TTL)
    assert not await store.leases.sessions_to_stop(NODE)
    assert (await store.owned.prepare(new)).jid == JID
    await store.observe(new, ProcessStarted())


async def test_an_expired_lease_is_not_renewed_even_if_nobody_took_it(store: Store) -> None:
    await store.create()
    await store.wish("anna", Activate())
    lease = await store.own()
    assert await store.leases.renew(Announcement(HERE, 5), TTL) == Renewal([lease], [])
    await store.expire()
    assert await store.leases.renew(Announcement(HERE, 5), TTL) == Renewal([], [])


async def test_a_session_s_owner_is_known_while_its_lease_lasts(store: Store, device_table: None) -> None:
    assert await store.leases.holder("anna") is None, "there is no such session"
    lease = await connected(store)
    assert await store.leases.holder("anna") is None, "its node has never said where it is called"
    await store.leases.renew(Announcement(HERE, 5), TTL)
    assert await store.leases.holder("anna") == LeaseOwner(HERE, lease.epoch)
    await store.expire()
    assert await store.leases.holder("anna") is None
    assert await store.claim(OTHER_NODE, 1) == ["anna"]
    await store.leases.renew(Announcement(THERE, 5), TTL)
    assert await store.leases.holder("anna") == LeaseOwner(THERE, lease.epoch)
    await store.leases.release_all(OTHER_NODE)
    assert await store.leases.holder("anna") is None


async def test_a_deleted_session_made_again_goes_on_counting(store: Store) -> None:
    await store.create()
    await store.wish("anna", Activate())
    first = await store.own()
    await store.events.append(first, [message(1)])
    await store.leases.release(first)
    await store.sessions.delete("anna", force=False)
    await store.create()
    await store.wish("anna", Activate())
    second = await store.own()
    assert second.epoch > first.epoch
    (event,) = (await store.events.append(second, [message(2)])).events
    assert event.sequence > 2
    with pytest.raises(LeaseLost):
        await store.events.append(first, [message(3)])


async def test_connected_is_evidence_not_memory(store: Store, device_table: None) -> None:
    lease = await connected(store)
    now = await store.sessions.get("anna")
    assert now.condition.state is State.CONNECTED
    assert now.owner is not None
    assert now.owner.epoch == lease.epoch
    await store.expire()
    later = await store.sessions.get("anna")
    assert (later.condition.state, later.condition.reason, later.owner) == (State.RECONNECTING, "NODE_STOPPED", None)
    rows = await store.fetch("SELECT session_id, status, has_creds, creds_size, last_connected FROM whatsapp_session")
    assert rows[0]["status"] == "RECONNECTING"
    assert rows[0]["has_creds"]
    assert rows[0]["creds_size"] > 32


# --- pairing and devices ----------------------------------------------------------------------------------------


async def connected(store: Store) -> Lease:
    await store.create()
    await store.wish("anna", Activate())
    lease = await store.own()
    identity = await save_device(store)
    await store.observe(lease, ProcessStarted())
    await store.owned.show_code(lease, code(), identity)
    await store.observe(lease, seen.DeviceSaved(JID, "1@lid", "android"), Account(JID, "1@lid", "", "android"))
    await store.observe(lease, seen.Connected(JID, "1@lid", "Anna"), Account(JID, "1@lid", "Anna"))
    return lease


async def test_the_steps_of_a_pairing(store: Store, device_table: None) -> None:
    lease = await connected(store)
    session, pairing = await store.sessions.pairing("anna")
    assert (pairing.outcome, pairing.code) == (PairingOutcome.PAIRED, None)
    assert session.account == Account(JID, "1@lid", "Anna", "android")
    assert session.credentials.present
    resume = await store.owned.prepare(lease)
    assert (resume.wanted, resume.jid, resume.missing) == (True, JID, False)


async def test_no_code_in_an_event(store: Store) -> None:
    await store.create()
    await store.wish("anna", Activate())
    lease = await store.own()
    await store.owned.show_code(lease, code(), bytes(32))
    rows = await store.fetch("SELECT payload FROM zap.event")
    assert rows
    assert not [row for row in rows if b"secret" in row["payload"]]
    _, pairing = await store.sessions.pairing("anna")
    assert pairing.code is not None
    assert "secret" not in repr(pairing)


async def test_a_scan_that_nobody_lived_to_record_is_found_by_its_identity(store: Store, device_table: None) -> None:
    await store.create()
    await store.wish("anna", Activate())
    lease = await store.own()
    await save_device(store, "4915100000009:1@s.whatsapp.net")
    identity = await save_device(store)
    await store.owned.show_code(lease, code(), identity)
    resume = await store.owned.prepare(lease)
    assert (resume.jid, resume.missing) == (JID, False)
    assert base64.b64encode(identity)
    session, _ = await store.sessions.pairing("anna")
    assert session.credentials.present


async def test_credentials_that_are_gone_are_missed_not_paired_anew(store: Store, device_table: None) -> None:
    lease = await connected(store)
    await store.execute("DELETE FROM whatsmeow_device")
    resume = await store.owned.prepare(lease)
    assert (resume.jid, resume.missing) == ("", True)


async def test_a_discarded_device_goes_once_no_process_can_write_it(store: Store, device_table: None) -> None:
    lease = await connected(store)
    await save_device(store, "4915100000009:1@s.whatsapp.net")
    await store.wish("anna", Deactivate())
    assert (await store.sessions.get("anna")).credentials.present, "a deactivated session keeps its credentials"
    with pytest.raises(FailedPrecondition):
        await store.sessions.delete("anna", force=False)
    await store.sessions.delete("anna", force=True)
    assert len(await store.fetch("SELECT FROM whatsmeow_device")) == 2, "its process may still run"
    await store.owned.delete_discarded_devices(lease)
    left = await store.fetch("SELECT jid FROM whatsmeow_device")
    assert [row["jid"] for row in left] == ["4915100000009:1@s.whatsapp.net"], "somebody else's device is not ours"
    assert not await store.fetch("SELECT FROM zap.discarded_identity")


async def test_leftovers_of_a_deleted_session_are_claimed_by_somebody(store: Store, device_table: None) -> None:
    await connected(store)
    await store.expire()
    await store.sessions.delete("anna", force=True)
    assert await store.claim(OTHER_NODE, 10) == ["anna"]
    lease = await store.leases.begin_epoch("anna", OTHER_NODE, TTL)
    assert not (await store.owned.prepare(lease)).wanted
    assert not await store.fetch("SELECT FROM whatsmeow_device")
    await store.leases.release(lease)
    assert not await store.claim(OTHER_NODE, 10)


async def test_cancelling_a_pairing_discards_what_it_may_have_made(store: Store, device_table: None) -> None:
    await store.create()
    await store.wish("anna", Activate())
    lease = await store.own()
    await store.owned.show_code(lease, code(), await save_device(store))
    await store.wish("anna", Deactivate())
    session, pairing = await store.sessions.pairing("anna")
    assert (session.condition.state, pairing.outcome, pairing.code) == (State.UNPAIRED, PairingOutcome.CANCELLED, None)
    await store.owned.delete_discarded_devices(lease)
    assert not await store.fetch("SELECT FROM whatsmeow_device")


# --- events -----------------------------------------------------------------------------------------------------


async def test_eight_writers_leave_no_gap_and_no_disorder(store: Store) -> None:
    await store.create()
    await store.wish("anna", Activate())
    lease = await store.own()
    numbers = iter(range(1, 401))

    async def write() -> None:
        for number in numbers:
            await store.events.append(lease, [message(number)])

    await asyncio.gather(*(write() for _ in range(8)))
    rows = await store.fetch("SELECT sequence FROM zap.event ORDER BY xid, id")
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) == 401


async def discard(store: Store, session_id: str, key: bytes = bytes(32)) -> None:
    await store.execute(
        "INSERT INTO zap.discarded_identity (identity_key, session_id) VALUES ($1, $2)", key, session_id
    )


async def test_sweeping_deletes_by_key_and_spares_a_device_that_got_the_same_jid(
    store: Store, device_table: None
) -> None:
    old = await connected(store)
    await store.execute("DELETE FROM whatsmeow_device")
    await store.observe(old, seen.Ended(Cause.LOGGED_OUT_ON_PHONE))
    await store.create("bern")
    await store.wish("bern", Activate())
    new = await store.own("bern")
    await store.owned.show_code(new, code(), await save_device(store, JID))
    await store.observe(new, seen.DeviceSaved(JID, "", ""), Account(jid=JID))
    await store.owned.delete_discarded_devices(old)
    assert await store.fetch("SELECT FROM whatsmeow_device")
    assert not await store.fetch("SELECT FROM zap.discarded_identity")


async def test_a_code_with_another_key_discards_the_key_before(store: Store, device_table: None) -> None:
    await store.create()
    await store.wish("anna", Activate())
    first = await store.own()
    late = X25519PrivateKey.generate()
    await store.owned.show_code(first, code(), late.public_key().public_bytes_raw())
    second = await store.leases.begin_epoch("anna", NODE, TTL)
    await store.owned.prepare(second)
    await store.owned.show_code(second, code(), bytes([2] * 32))
    # What the first process had sent before it died.
    await store.execute("INSERT INTO whatsmeow_device VALUES ($1, $2)", JID, late.private_bytes_raw())
    await store.owned.delete_discarded_devices(second)
    assert not await store.fetch("SELECT FROM whatsmeow_device")


@pytest.mark.parametrize("cause", [Cause.CLIENT_OUTDATED, Cause.TEMPORARILY_BANNED])
async def test_a_session_that_is_not_due_is_claimed_for_its_leftovers_and_not_started(
    store: Store, device_table: None, cause: Cause
) -> None:
    lease = await connected(store)
    until = datetime.now(UTC) + timedelta(hours=1)
    await store.observe(lease, seen.Ended(cause, until=until))
    await store.leases.release(lease)
    await discard(store, "anna")
    assert not (await store.owned.prepare(await store.own())).wanted
    assert not await store.fetch("SELECT FROM zap.discarded_identity")


async def test_no_more_is_claimed_than_asked_for_leftovers_included(store: Store, device_table: None) -> None:
    for number in range(3):
        await store.create(f"wanted-{number}")
        await store.wish(f"wanted-{number}", Activate())
        await discard(store, f"left-{number}", bytes([number] * 32))
    assert sorted(await store.claim(NODE, 4)) == ["left-0", "wanted-0", "wanted-1", "wanted-2"]


async def test_a_name_that_postgres_cannot_hold_is_written_without_what_it_cannot(
    store: Store, device_table: None
) -> None:
    lease = await connected(store)
    await store.observe(lease, seen.PushNameChanged("An\0na"), Account(push_name="An\0na"))
    assert (await store.sessions.get("anna")).account.push_name == "Anna"


# --- messages ---------------------------------------------------------------------------------------------------


async def test_a_request_id_is_accepted_once(store: Store, device_table: None) -> None:
    lease = await connected(store)
    results = await asyncio.gather(*(store.accept(lease, "r1", "x", b"f") for _ in range(10)))
    assert sum(new for _, new in results) == 1
    with pytest.raises(InvalidArgument):
        await store.accept(lease, "r1", "x", b"g")


async def test_a_message_is_settled_once_and_never_goes_back(store: Store, device_table: None) -> None:
    lease = await connected(store)
    await store.accept(lease, "r1", "x", b"f")
    sent = Outcome(MessageState.SENT, "WA1", sent=datetime.now(UTC))
    assert (await store.send_queue.settle("anna", "r1", lease.epoch, sent)).state is MessageState.SENT
    failed = await store.send_queue.settle("anna", "r1", lease.epoch, Outcome(MessageState.FAILED, detail="no"))
    assert failed.state is MessageState.SENT
    await store.send_queue.delivered("anna", ["WA1"], MessageState.READ)
    await store.send_queue.delivered("anna", ["WA1"], MessageState.DELIVERED)
    found = await store.messages.find("anna", "r1", None)
    assert found is not None
    assert found.state is MessageState.READ


async def test_why_a_message_was_not_sent_is_kept(store: Store, device_table: None) -> None:
    lease = await connected(store)
    words = "failed to send usync query: status 429: rate-overlimit"
    for request_id, failure in (("r1", SendFailure.RATE_LIMITED), ("r2", None)):
        await store.accept(lease, request_id, "x", b"f")
        outcome = Outcome(MessageState.FAILED, detail=words, failure=failure)
        settled = await store.send_queue.settle("anna", request_id, lease.epoch, outcome)
        assert (settled.failure, settled.detail) == (failure, words)
        assert await store.messages.find("anna", request_id, None) == replace(settled, is_resend_failed=False)


async def test_texts_of_strangers_may_hold_what_postgres_cannot(store: Store, device_table: None) -> None:
    lease = await connected(store)
    await store.accept(lease, "r1", "x", b"f")
    await store.send_queue.settle("anna", "r1", lease.epoch, Outcome(MessageState.SENT, "WA1", "a\0b"))
    await store.send_queue.delivered("anna", ["no\0id", "WA1"], MessageState.READ)
    await store.observe(lease, seen.PushNameChanged("An\0na"), Account(push_name="An\0na"))
    found = await store.messages.find("anna", "r1", None)
    assert found is not None
    assert (found.state, found.detail) == (MessageState.READ, "ab")
    assert (await store.sessions.get("anna")).account.push_name == "Anna"


async def test_what_a_dead_process_was_sending_waits_again_or_has_an_id(
    store: Store, device_table: None, retry_buffer: None
) -> None:
    lease = await connected(store)
    for request_id in ("left", "did not leave", "of a release before"):
        await store.accept(lease, request_id)
    await store_in_library(store, "left", "WA1")
    await store.execute(
        "UPDATE zap.message SET payload = NULL, begun_epoch = NULL WHERE request_id = 'of a release before'"
    )
    await store.owned.prepare(lease)
    assert {(await found(store, each)).state for each in ("left", "did not leave")} == {MessageState.ACCEPTED}
    assert await store.send_queue.begin_next(lease) is None, "its own epoch is still sending them"
    lease = await store.leases.begin_epoch("anna", NODE, TTL)
    await store.owned.prepare(lease)
    left = await found(store, "left")
    assert (left.state, left.message_id) == (MessageState.OUTCOME_UNKNOWN, "WA1")
    assert (await found(store, "of a release before")).state is MessageState.OUTCOME_UNKNOWN
    begun = await store.send_queue.begin_next(lease)
    assert begun is not None
    assert (begun.message.request_id, begun.secret) == ("did not leave", secret_of("did not leave"))
    assert begun.content == text_content("did not leave")
    await store.send_queue.delivered("anna", ["WA1"], MessageState.DELIVERED)
    assert (await found(store, "left")).state is MessageState.DELIVERED


async def test_a_receipt_that_was_faster_than_the_answer_settles_the_message_of_a_dead_process(
    store: Store, device_table: None, retry_buffer: None
) -> None:
    lease = await connected(store)
    for request_id in ("delivered", "read", "neither"):
        await store.accept(lease, request_id)
        await store_in_library(store, request_id, f"WA-{request_id}")
    await store.send_queue.delivered("anna", ["WA-read", "WA-delivered", "WA-other"], MessageState.DELIVERED)
    await store.send_queue.delivered("anna", ["WA-read"], MessageState.READ)
    await store.send_queue.delivered("anna", ["WA-read"], MessageState.DELIVERED)
    await store.owned.prepare(await store.leases.begin_epoch("anna", NODE, TTL))
    assert {each: (await found(store, each)).state for each in ("delivered", "read", "neither")} == {
        "delivered": MessageState.DELIVERED,
        "read": MessageState.READ,
        "neither": MessageState.OUTCOME_UNKNOWN,
    }
    assert await store.fetch("SELECT * FROM zap.unmatched_receipt") == []


async def test_of_a_deleted_device_nothing_can_be_known(store: Store, device_table: None, retry_buffer: None) -> None:
    lease = await connected(store)
    await store.accept(lease, "r1")
    await store.execute("DELETE FROM whatsmeow_device")
    await store.owned.prepare(await store.leases.begin_epoch("anna", NODE, TTL))
    assert (await found(store, "r1")).state is MessageState.OUTCOME_UNKNOWN


async def test_a_message_that_waited_for_too_long_is_not_sent(store: Store, device_table: None) -> None:
    lease = await connected(store)
    for request_id in ("old", "new"):
        await store.accept(lease, request_id, begin=False)
    await store.execute("UPDATE zap.message SET create_time = now() - interval '61 min' WHERE request_id = 'old'")
    begun = await store.send_queue.begin_next(lease)
    assert begun is not None
    assert begun.message.request_id == "new"
    old = await found(store, "old")
    assert (old.state, old.failure) == (MessageState.FAILED, SendFailure.EXPIRED)


async def test_a_node_finds_the_queues_of_its_sessions(store: Store, device_table: None) -> None:
    lease = await connected(store)
    assert await store.send_queue.sessions_with_queue(NODE) == []
    await store.accept(lease, "r1", begin=False)
    assert await store.send_queue.sessions_with_queue(NODE) == ["anna"]
    assert await store.send_queue.sessions_with_queue(uuid.uuid4()) == []


async def test_no_message_is_begun_for_an_epoch_that_is_over(store: Store, device_table: None) -> None:
    lease = await connected(store)
    await store.accept(lease, "r1", begin=False)
    await store.leases.begin_epoch("anna", NODE, TTL)
    assert await store.send_queue.begin_next(lease) is None


async def found(store: Store, request_id: str) -> OutboundMessage:
    """The message as it is stored."""
    message = await store.messages.find("anna", request_id, None)
    assert message is not None
    return message


@pytest.fixture
async def retry_buffer(store: Store) -> None:
    """The table in which whatsmeow keeps what it sends."""
    await store.execute(
        "CREATE TABLE whatsmeow_retry_buffer ("
        "our_jid text, chat_jid text, message_id text, format text, plaintext bytea, timestamp bigint)"
    )


async def store_in_library(store: Store, request_id: str, message_id: str) -> None:
    """What whatsmeow stores of a message before it sends it."""
    plaintext = b"before" + secret_of(request_id) + b"after"
    await store.execute(
        "INSERT INTO whatsmeow_retry_buffer SELECT device_jid, 'x@lid', $1, 'waE2E', $2,"
        " (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM zap.session WHERE session_id = 'anna'",
        message_id,
        plaintext,
    )


async def test_a_session_that_is_deleted_while_it_sends_is_not_found_any_more(store: Store, device_table: None) -> None:
    lease = await connected(store)
    await store.accept(lease, "r1", "x", b"f")
    await store.sessions.delete("anna", force=True)
    with pytest.raises(LeaseLost):
        await store.accept(lease, "r2", "x", b"f")
    with pytest.raises(NotFound):
        await store.send_queue.settle(
            "anna", "r1", lease.epoch, Outcome(MessageState.SENT, "WA1", sent=datetime.now(UTC))
        )


async def test_a_message_that_meets_a_deletion_waits_and_is_not_accepted(store: Store, device_table: None) -> None:
    lease = await connected(store)
    async with store.database.transaction() as deletion:
        await deletion.run("delete_session", "anna")
        accepting = asyncio.create_task(store.accept(lease, "r1", "x", b"f"))
        await asyncio.sleep(0.1)
        assert not accepting.done()
    with pytest.raises(LeaseLost):
        await accepting


@pytest.mark.parametrize("change", ["begin_epoch", "revoke_epoch"])
async def test_a_message_that_meets_the_end_of_its_epoch_waits_and_is_not_accepted(
    store: Store, device_table: None, change: str
) -> None:
    lease = await connected(store)
    async with store.database.transaction() as ending:
        await ending.row("lock_session", "anna")
        await ending.value(change, *(("anna", NODE, TTL) if change == "begin_epoch" else ("anna",)))
        accepting = asyncio.create_task(store.accept(lease, "r1", "x", b"f"))
        await asyncio.sleep(0.1)
        assert not accepting.done()
    with pytest.raises(LeaseLost):
        await accepting
    assert await store.messages.find("anna", "r1", None) is None


async def test_a_renewal_does_not_wait_for_a_message_that_waits(store: Store, device_table: None) -> None:
    lease = await connected(store)
    async with store.database.transaction() as somebody:
        await somebody.row("lock_session", "anna")
        accepting = asyncio.create_task(store.accept(lease, "r1", "x", b"f"))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(3):
            assert list((await store.leases.renew(Announcement(HERE, 5), TTL)).renewed) == [lease]
        assert not accepting.done()
    # Renewed meanwhile, and accepted all the same.
    assert (await accepting)[1]


async def test_a_message_that_is_being_accepted_holds_up_no_renewal(store: Store, device_table: None) -> None:
    """Or a session that sends all the time would be passed over each time, and be fenced."""
    lease = await connected(store)
    async with store.database.transaction() as sending:
        await sending.run("keep_epoch", "anna")
        stored = ("anna", "r1", "x", b"f", lease.epoch, NODE, "zap.v1.Text", b"", b"s", True, MAX_QUEUED, "MESSAGE")
        assert await sending.row("accept_message", *stored)
        assert list((await store.leases.renew(Announcement(HERE, 5), TTL)).renewed) == [lease]


async def test_a_receipt_that_no_honest_device_sends_hurts_nobody(store: Store, device_table: None) -> None:
    lease = await connected(store)
    await store.accept(lease, "r1", "x", b"f")
    await store.send_queue.settle("anna", "r1", lease.epoch, Outcome(MessageState.SENT, "WA1", sent=datetime.now(UTC)))
    await store.send_queue.delivered("anna", ["\0", "WA1"], MessageState.READ)
    found = await store.messages.find("anna", "r1", None)
    assert found is not None
    assert found.state is MessageState.READ


async def test_a_session_is_handed_over_in_one_step_to_a_node_that_goes_on(store: Store, device_table: None) -> None:
    lease = await connected(store)
    await store.leases.renew(Announcement(HERE, 5), TTL)
    assert await store.leases.targets(NODE) == []
    await store.leases.renew(Announcement(THERE, 3), TTL)
    assert await store.leases.targets(NODE) == [Candidate(THERE, 0, 3)]
    assert await store.leases.hand_over("anna", NODE, THERE, TTL)
    assert await store.leases.targets(OTHER_NODE) == [Candidate(HERE, 0, 5)]
    assert await store.leases.targets(NODE) == [Candidate(THERE, 1, 3)]
    assert await store.leases.holder("anna") == LeaseOwner(THERE, lease.epoch)
    assert await store.leases.renew(Announcement(HERE, 5), TTL) == Renewal([], [])
    shown = await store.sessions.get("anna")
    assert shown.condition.state is State.RECONNECTING, "the heir vouches for nothing before its own process connects"
    with pytest.raises(LeaseLost):
        await store.observe(lease, seen.Disconnected())
    assert not await store.leases.hand_over("anna", NODE, THERE, TTL)
    await store.leases.release_orphaned_lease(lease)
    assert await store.leases.holder("anna") == LeaseOwner(THERE, lease.epoch), "it is the other's"
    assert (await store.leases.begin_epoch("anna", OTHER_NODE, TTL)).epoch == lease.epoch + 1
    await store.leases.renew(Announcement(THERE, 3, is_draining=True), TTL)
    assert await store.leases.targets(NODE) == []


async def test_a_lease_that_has_run_out_cannot_be_handed_over(store: Store, device_table: None) -> None:
    await connected(store)
    await store.leases.renew(Announcement(THERE, 3), TTL)
    await store.expire()
    assert not await store.leases.hand_over("anna", NODE, THERE, TTL)


async def test_a_lease_is_handed_over_only_to_a_node_that_goes_on(store: Store, device_table: None) -> None:
    await connected(store)
    assert not await store.leases.hand_over("anna", NODE, THERE, TTL), "nobody has ever heard of it"
    await store.leases.renew(Announcement(THERE, 3, is_draining=True), TTL)
    assert not await store.leases.hand_over("anna", NODE, THERE, TTL)
    await store.leases.renew(Announcement(THERE, 3), TTL)
    assert await store.leases.hand_over("anna", NODE, THERE, TTL)


async def test_a_stray_that_somebody_begins_to_work_for_is_not_released(store: Store, device_table: None) -> None:
    stray = await connected(store)
    lease = await store.leases.begin_epoch("anna", NODE, TTL)
    await store.leases.release_orphaned_lease(stray)
    assert await store.leases.renew(Announcement(HERE, 5), TTL) == Renewal([lease], [])
    await store.leases.release_orphaned_lease(lease)
    assert await store.leases.renew(Announcement(HERE, 5), TTL) == Renewal([], [])


async def test_a_release_that_comes_late_does_not_end_what_has_begun_since(store: Store, device_table: None) -> None:
    before = await connected(store)
    await store.leases.release(before)
    lease = await store.own()
    # The node has given up waiting for it, the network or a lock had kept it.
    await store.leases.release(before)
    await store.leases.release(replace(before, epoch=0))
    assert list((await store.leases.renew(Announcement(HERE, 5), TTL)).renewed) == [lease]
    await store.leases.release(lease)
    assert list((await store.leases.renew(Announcement(HERE, 5), TTL)).renewed) == []


async def test_a_node_that_stops_gives_up_what_nobody_began(store: Store, device_table: None) -> None:
    # Whoever began it gives it up by itself, once its process is dead.
    lease = await connected(store)
    await store.create("berta")
    await store.wish("berta", Activate())
    assert await store.claim(NODE, 1) == ["berta"]
    await store.leases.release_all(NODE)
    assert list((await store.leases.renew(Announcement(HERE, 5), TTL)).renewed) == [lease]


async def test_what_was_claimed_and_not_begun_is_released_under_whatever_epoch(
    store: Store, device_table: None
) -> None:
    await store.leases.release(await connected(store))
    assert await store.claim(NODE, 1) == ["anna"]
    await store.leases.release(Lease("anna", 0, NODE))
    assert list((await store.leases.renew(Announcement(HERE, 5), TTL)).renewed) == []


async def test_an_event_that_postgres_refuses_does_not_keep_back_those_beside_it(
    store: Store, device_table: None
) -> None:
    lease = await connected(store)
    await store.execute(
        "ALTER TABLE zap.event ADD CONSTRAINT poison CHECK (origin NOT IN ('message        2', 'message        5'))"
    )
    news = [message(number) for number in range(1, 8)]
    appended = (await store.events.append(lease, news)).events
    poison = [news[1], news[4]]
    assert [event.payload for event in appended] == [new.payload for new in news if new not in poison]
    first = appended[0].sequence
    assert [event.sequence for event in appended] == list(range(first, first + 5))
    assert store.refused == [("anna", event, "CheckViolationError") for event in poison]


async def test_a_password_that_was_changed_is_an_outage_and_no_fault_of_ours(store: Store, database_url: str) -> None:
    user = f"zap_{uuid.uuid4().hex}"
    await store.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'changed'")
    try:
        netloc = database_url.partition("//")[2].partition("@")[0]
        database = Database(database_url.replace(netloc, f"{user}:before"), name="test", size=1)
        await database.open()
        with pytest.raises(Unavailable) as refused:
            async with database.autocommit() as connection:
                await connection.value("leftovers_exist")
        assert refused.value.metadata["cause"] == "InvalidPasswordError"
        await database.close()
    finally:
        await store.execute(f"DROP ROLE {user}")


# --- the database's own refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nonsense",
    [
        "UPDATE zap.session SET state = 'CONNECTED', desired_state = 'ACTIVE'",
        "UPDATE zap.session SET state = 'LOGGED_OUT', desired_state = 'ACTIVE'",
        "UPDATE zap.session SET state = 'PAIRING'",
        "UPDATE zap.session SET credentials = 'CONFIRMED'",
        "UPDATE zap.session SET session_id = 'Ünlaut'",
        "INSERT INTO zap.lease (session_id, incarnation) VALUES ('x', gen_random_uuid())",
    ],
)
async def test_the_database_refuses_nonsense(store: Store, nonsense: str) -> None:
    await store.create()
    with pytest.raises(asyncpg.CheckViolationError):
        await store.execute(nonsense)
    assert (await store.sessions.get("anna")).condition.desired is Desired.INACTIVE


async def test_a_forgotten_transaction_blocks_nobody_for_long(store: Store, database_url: str) -> None:
    await store.create()
    frozen = Database(database_url, name="frozen", timeouts={"idle_in_transaction_session_timeout": "300ms"})
    await frozen.open()

    async def hold() -> None:
        async with frozen.transaction() as connection:
            await connection.row("lock_session", "anna")
            await asyncio.sleep(4)

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0.1)
    started = time.monotonic()
    await store.wish("anna", Activate())
    assert time.monotonic() - started < 3
    with pytest.raises(Exception, match="does not answer"):
        await holder
    await frozen.close()


async def test_a_cancelled_transaction_ends_at_once_though_the_server_is_silent(database_url: str) -> None:
    """It used to wait for its rollback, and to turn the cancellation into an error that its caller retried."""
    async with TcpProxy(database_url) as proxy:
        database = Database(proxy.url, name="test")
        await database.open()
        begun = asyncio.Event()

        async def wait_for_an_answer() -> None:
            async with database.transaction() as connection:
                begun.set()
                await connection._raw.execute("SELECT pg_sleep(60)")

        waiting = asyncio.create_task(wait_for_an_answer())
        await begun.wait()
        await proxy.set(Line.SILENT)
        started = time.monotonic()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await database.close()
        assert time.monotonic() - started < 4
