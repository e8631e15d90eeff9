"""Formats sessions, messages and pairings for the terminal."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zap.v1 import message_pb2, session_pb2

_MessageT = TypeVar("_MessageT", bound=Message)

_UNLIMITED_WIDTH = 10_000
_COLOURS = {"CONNECTED": "green", "FAILED": "red", "LOGGED_OUT": "red", "SUSPENDED": "red"}


def print_json(message: Message) -> None:
    """Print one line of protobuf JSON. It is ASCII, so that foreign text cannot send control characters."""
    print(MessageToJson(message, indent=None), flush=True)


def print_session(session: session_pb2.Session) -> None:
    """Print all fields of a session that are set."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(session):
        if value:
            table.add_row(name, _state(value) if name == "state" else Text(value))
    _console().print(table)


def print_sessions(sessions: Sequence[session_pb2.Session]) -> None:
    """Print a table with one line for each session."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("SESSION", "STATE", "WANTED", "PHONE", "NODE", "LAST CONNECTED", "NEXT ATTEMPT", "REASON"):
        table.add_column(column, overflow="fold")
    for session in sessions:
        table.add_row(
            Text(session.session_id),
            _state(state_word(session.state)),
            Text(wanted_word(session.desired_state)),
            Text(session.account.phone),
            Text(session.owner.node),
            Text(_moment(session.evidence.last_connected_time)),
            Text(_moment(session.evidence.next_attempt_time)),
            Text(session.reason.code),
        )
    _console().print(table)
    if waiting := sum(session.reason.code == "WAITING_FOR_TURN" for session in sessions):
        # To stderr, because programs may read the table on stdout.
        print(f"{waiting} of {len(sessions)} sessions wait for their turn to be started", file=sys.stderr)


def print_rows(
    found: Iterable[_MessageT], columns: Sequence[str], row: Callable[[_MessageT], Sequence[str]], *, as_json: bool
) -> None:
    """Print one line for each message: of a table, which is not wrapped in a pipe, or as JSON."""
    if as_json:
        for each in found:
            print_json(each)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for each in found:
        table.add_row(*map(Text, row(each)))
    _console().print(table)


def print_message(message: message_pb2.Message) -> None:
    """Print the state of a message that a caller sent."""
    state = message_pb2.Message.State.Name(message.state).removeprefix("STATE_")
    line = f"{state} {message.message_id}".rstrip()
    _console().print(Text(f"{line}{_because(message.reason)}"))
    if message.HasField("unreadable_since_time"):
        line = f"A device of a recipient could not read it at {_moment(message.unreadable_since_time)}"
        resend = "it could not be sent again" if message.is_resend_failed else "it is sent again when the device asks"
        _console().print(Text(f"{line}, and has not confirmed it since; {resend}."))


def outcome_text(response: session_pb2.StreamQRResponse) -> str:
    """Return how a pairing ended and what the user can do."""
    try:
        outcome = session_pb2.PairingOutcome.Name(response.outcome).removeprefix("PAIRING_OUTCOME_")
    except ValueError:
        outcome = f"an outcome that this zapctl does not know ({response.outcome})"
    return f"{outcome}{_because(response.reason)}"


def delay_text(response: session_pb2.StreamQRResponse) -> str:
    """Return why there is no code now and what the user can do."""
    return f"There is no code now ({response.reason.code}){_because(response.reason)}"


def word_of(enum: Any, number: int, prefix: str) -> str:
    """Return the name of a protobuf enum value without its prefix; the number if this zapctl does not know it."""
    try:
        return str(enum.Name(number)).removeprefix(prefix)
    except ValueError:
        return str(number)


def state_word(number: int) -> str:
    """Return the name of a state without its prefix."""
    return word_of(session_pb2.Session.State, number, "STATE_")


def wanted_word(number: int) -> str:
    """Return the name of a desired state without its prefix."""
    return word_of(session_pb2.Session.DesiredState, number, "DESIRED_STATE_")


def _rows(session: session_pb2.Session) -> Iterable[tuple[str, str]]:
    evidence, owner, credentials = session.evidence, session.owner, session.credentials
    yield "session", session.session_id
    yield "name", session.name
    yield "user", session.user_id
    yield "labels", " ".join(f"{key}={value}" for key, value in sorted(session.labels.items()))
    yield "proxy", session.proxy_url
    yield "wanted", wanted_word(session.desired_state)
    yield "state", state_word(session.state)
    yield "reason", f"{session.reason.code}{_because(session.reason)}" if session.reason.code else ""
    yield "account", " ".join(filter(None, (session.account.phone, session.account.push_name, session.account.jid)))
    yield "node", f"{owner.node} (epoch {owner.epoch})" if owner.node else ""
    yield "last connected", _moment(evidence.last_connected_time)
    yield "last disconnected", _moment(evidence.last_disconnected_time)
    yield "last inbound", _moment(evidence.last_inbound_time)
    yield "attempts", str(evidence.attempts or "")
    yield "next attempt", _moment(evidence.next_attempt_time)
    yield "credentials", f"{credentials.size} bytes" if credentials.present else "none"
    yield "created", _moment(session.create_time)


def _console() -> Console:
    # Lines written to a pipe are not wrapped.
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_UNLIMITED_WIDTH)


def _state(word: str) -> Text:
    return Text(word, style=_COLOURS.get(word, "yellow"))


def _because(reason: session_pb2.Reason) -> str:
    words = " ".join(filter(None, (reason.message, reason.user_action)))
    return f": {words}" if words else ""


def _moment(moment: Timestamp) -> str:
    return moment.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC") if moment.seconds else ""
