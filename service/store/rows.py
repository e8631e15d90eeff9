"""Converts rows of queries.sql to records, and back."""

from service.domain.pairing import PairingCode, PairingOutcome
from service.domain.records import (
    Account,
    Evidence,
    MessageKind,
    MessageState,
    OutboundMessage,
    Owner,
    Pairing,
    Session,
    StoredCredentials,
)
from service.domain.send_failures import SendFailure
from service.domain.session import Condition, Credentials, Desired, State, waits_for_start
from service.store.database import Record


def condition(row: Record) -> Condition:
    """Convert a row of zap.session or zap.session_now to a condition."""
    return Condition(
        desired=Desired(row["desired_state"]),
        state=State(row["state"]),
        reason=row["reason"],
        credentials=Credentials(row["credentials"]),
        attempts=row["attempts"],
        next_attempt=row["next_attempt_at"],
        replaced_at=row["replaced_at"],
    )


def session(row: Record) -> Session:
    """Convert a row of zap.session_now, with the database's time, to a session."""
    is_owned = row["lease_expires_at"] is not None
    return Session(
        session_id=row["session_id"],
        name=row["name"],
        user_id=row["user_id"],
        labels=row["labels"],
        proxy_url=row["proxy_url"],
        condition=condition(row),
        account=Account(row["account_jid"], row["account_lid"], row["push_name"], row["platform"]),
        owner=Owner(row["owner"], row["epoch"], row["lease_expires_at"]) if is_owned else None,
        evidence=Evidence(
            last_connected=row["last_connected_at"],
            last_disconnected=row["last_disconnected_at"],
            last_inbound=row["last_inbound_at"],
            last_acknowledged_send=row["last_acknowledged_send_at"],
        ),
        credentials=StoredCredentials(row["creds_size"], row["paired_at"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
        etag=str(row["version"]),
        waits_for_start=waits_for_start(condition(row), row["now"], is_owned=is_owned),
    )


def pairing(row: Record | None) -> Pairing:
    """Convert a row of zap.pairing; None, for a session that never paired, to an empty pairing."""
    if row is None:
        return Pairing(code=None, outcome=None)
    shown = row["code_text"] is not None
    return Pairing(
        code=PairingCode(row["code_text"], row["code_position"], row["code_expires_at"]) if shown else None,
        outcome=PairingOutcome(row["outcome"]) if row["outcome"] else None,
        reason=row["reason"],
    )


def detail(failure: SendFailure | None, words: str) -> str:
    """Return the value of zap.message.detail: the library's words, after the kind of failure if there is one."""
    return f"{failure.value}: {words}" if failure is not None else words


def _failure(detail: str) -> tuple[SendFailure | None, str]:
    """Split a detail into kind and words. Details of earlier releases have no kind."""
    code, _, words = detail.partition(": ")
    failure = SendFailure.__members__.get(code)
    return failure, words if failure is not None else detail


def message(row: Record) -> OutboundMessage:
    """Convert a row of zap.message."""
    failure, words = _failure(row["detail"])
    return OutboundMessage(
        session_id=row["session_id"],
        request_id=row["request_id"],
        to=row["recipient"],
        epoch=row["epoch"],
        state=MessageState(row["state"]),
        message_id=row["message_id"],
        detail=words,
        create_time=row["create_time"],
        sent_time=row["sent_time"],
        update_time=row["update_time"],
        # Only the statement get_message returns these two columns.
        unreadable_since=row.get("unreadable_since"),
        is_resend_failed=bool(row.get("is_resend_failed")),
        failure=failure,
        is_queued=row["state"] == "ACCEPTED" and row["payload"] is not None and row["begun_epoch"] is None,
        kind=MessageKind(row["kind"]),
        chat=row["chat"],
    )
