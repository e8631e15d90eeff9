"""Convert sessions and pairings to zap.v1 messages."""

from service.domain import reasons
from service.domain.pairing import PairingOutcome
from service.domain.proxies import hide_password
from service.domain.records import Account, Evidence, Owner, Session, StoredCredentials
from service.domain.session import Condition, State
from service.protocol.timestamps import timestamp
from zap.v1 import session_pb2 as pb


def session_message(session: Session) -> pb.Session:
    """Return a session as Status shows it, without secrets."""
    condition = session.condition
    return pb.Session(
        session_id=session.session_id,
        name=session.name,
        user_id=session.user_id,
        labels=session.labels,
        proxy_url=hide_password(session.proxy_url),
        desired_state=pb.Session.DesiredState.Value(f"DESIRED_STATE_{condition.desired.name}"),
        state=state_number(condition.state),
        reason=reason_message("WAITING_FOR_TURN" if session.waits_for_start else condition.reason),
        account=_account(session.account),
        owner=_owner(session.owner),
        evidence=_evidence(session.evidence, condition),
        credentials=_credentials(session.credentials),
        create_time=timestamp(session.create_time),
        update_time=timestamp(session.update_time),
        etag=session.etag,
    )


def reason_message(code: str) -> pb.Reason | None:
    """Return the reason message of a code; None for the empty code."""
    if not code:
        return None
    reason = reasons.reason(code)
    return pb.Reason(code=reason.code, message=reason.message, user_action=reason.user_action)


def state_number(state: State) -> pb.Session.State.ValueType:
    """Return the protobuf value of a state."""
    return pb.Session.State.Value(f"STATE_{state.name}")


def state_of(number: pb.Session.State.ValueType) -> State:
    """Return the domain's state. Raises KeyError or ValueError for a number that is no state."""
    return State[pb.Session.State.Name(number).removeprefix("STATE_")]


def outcome_number(outcome: PairingOutcome) -> pb.PairingOutcome.ValueType:
    """Return the protobuf value of an outcome."""
    return pb.PairingOutcome.Value(f"PAIRING_OUTCOME_{outcome.name}")


def _account(account: Account) -> pb.Account | None:
    if account == Account():
        return None
    return pb.Account(
        jid=account.jid,
        lid=account.lid,
        phone=account.phone,
        push_name=account.push_name,
        platform=account.platform,
    )


def _owner(owner: Owner | None) -> pb.Owner | None:
    if owner is None:
        return None
    return pb.Owner(node=owner.node, epoch=owner.epoch, lease_expire_time=timestamp(owner.lease_expire_time))


def _evidence(evidence: Evidence, condition: Condition) -> pb.Evidence:
    return pb.Evidence(
        last_connected_time=timestamp(evidence.last_connected),
        last_disconnected_time=timestamp(evidence.last_disconnected),
        last_inbound_time=timestamp(evidence.last_inbound),
        last_acknowledged_send_time=timestamp(evidence.last_acknowledged_send),
        attempts=condition.attempts,
        next_attempt_time=timestamp(condition.next_attempt),
    )


def _credentials(credentials: StoredCredentials) -> pb.Credentials:
    return pb.Credentials(
        present=credentials.present, size=credentials.size, create_time=timestamp(credentials.create_time)
    )
