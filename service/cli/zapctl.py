"""Defines the commands of zapctl.

Exit codes: 0 done · 1 unexpected error · 2 wrong command line · 3 to 13 error of the call, by status · 20 to 24 outcome
of a pairing other than PAIRED · 30 message not sent · 31 outcome of a message unknown.
"""

import io
import sys
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from service.cli import contacts, groups, views
from service.cli.connection import ServerConnection
from service.cli.downloading import content_of
from service.cli.downloading import download as download_file
from service.cli.failures import NOT_SENT, OUTCOME_UNKNOWN
from service.cli.pairing import show_codes
from service.cli.watching import watch as watch_events
from zap.v1 import event_pb2, media_pb2, message_pb2, session_pb2, watch_pb2

app = typer.Typer(help="WhatsApp sessions from a terminal.", no_args_is_help=True, pretty_exceptions_enable=False)

app.add_typer(contacts.app, name="contacts")
app.add_typer(groups.app, name="groups")

SessionId = Annotated[str, typer.Argument(help="Which session.", show_default=False)]

_MESSAGE_EXIT_CODES = {
    message_pb2.Message.STATE_FAILED: NOT_SENT,
    message_pb2.Message.STATE_OUTCOME_UNKNOWN: OUTCOME_UNKNOWN,
}


@app.callback()
def connect(
    context: typer.Context,
    address: Annotated[str, typer.Option(envvar="ZAP_ADDRESS", help="host:port of a node.")] = "127.0.0.1:50051",
    token: Annotated[str, typer.Option(envvar="ZAP_AUTH_TOKEN", help="The bearer token.", show_default=False)] = "",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print protobuf JSON, one message a line.")] = False,
) -> None:
    """WhatsApp sessions from a terminal."""
    context.obj = ServerConnection(address, token, as_json)


@app.command()
def create(
    context: typer.Context,
    session_id: Annotated[str, typer.Argument(help="The id to use; generated if none is given.")] = "",
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    user_id: Annotated[str, typer.Option(help="The user it belongs to.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="A label as key=value; may be repeated.")] = None,
    proxy_url: Annotated[str, typer.Option(envvar="ZAPCTL_PROXY_URL", help="A proxy to connect through.")] = "",
    request_id: Annotated[str, typer.Option(help="An idempotency key.")] = "",
) -> None:
    """Create a session."""
    request = session_pb2.CreateRequest(
        session_id=session_id,
        name=name,
        user_id=user_id,
        labels=_labels(label),
        proxy_url=proxy_url,
        request_id=request_id,
    )
    _session_call(context, "Create", request)


@app.command()
def activate(context: typer.Context, session_id: SessionId) -> None:
    """Connect a session; an unpaired one begins a pairing (see qr)."""
    _session_call(context, "Activate", session_pb2.ActivateRequest(session_id=session_id))


@app.command()
def qr(context: typer.Context, session_id: SessionId) -> None:
    """Show the QR codes of a pairing until it ends; exit with 0 if it is paired."""
    sys.exit(show_codes(context.obj, session_id))


@app.command()
def status(context: typer.Context, session_id: SessionId) -> None:
    """Show a session."""
    _session_call(context, "Status", session_pb2.StatusRequest(session_id=session_id))


@app.command(name="list")
def list_sessions(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state, as CONNECTED; may be repeated.")] = None,
    user_id: Annotated[str, typer.Option(help="Only of this user.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="Only with this label, key=value; may be repeated.")] = None,
) -> None:
    """List all sessions that match."""
    server: ServerConnection = context.obj
    states = [_number(session_pb2.Session.State, "STATE_", word, "--state") for word in state or ()]
    request = session_pb2.ListRequest(page_size=1000, user_id=user_id, states=states, labels=_labels(label))
    found: list[session_pb2.Session] = []
    with server.sessions() as sessions:
        while True:
            response = server.call(sessions.List, request)
            found += response.sessions
            request.page_token = response.next_page_token
            if not request.page_token:
                break
    if server.as_json:
        for session in found:
            views.print_json(session)
    else:
        views.print_sessions(found)


@app.command()
def send(
    context: typer.Context,
    session_id: SessionId,
    to: Annotated[str, typer.Argument(help="A phone number with country code, or a JID.")],
    text: Annotated[str, typer.Argument(help="What to send; - reads it from the standard input.")],
    request_id: Annotated[str, typer.Option(help="The idempotency key; generated if none is given.")] = "",
    reply_to: Annotated[str, typer.Option(help="The request id of a sent message, to which this one replies.")] = "",
) -> None:
    """Send a text, once per request id."""
    server: ServerConnection = context.obj
    body = sys.stdin.read() if text == "-" else text
    request = message_pb2.SendRequest(
        session_id=session_id, to=to, request_id=request_id or str(uuid4()), text=message_pb2.Text(body=body)
    )
    if reply_to:
        request.reply_to.request_id = reply_to
    with server.messages() as messages:
        message: message_pb2.Message = server.call(messages.Send, request)
        _show(server, message, views.print_message)
        sys.exit(_MESSAGE_EXIT_CODES.get(message.state, 0))


@app.command()
def watch(
    context: typer.Context,
    session_id: Annotated[list[str] | None, typer.Argument(help="Which sessions; all if none is given.")] = None,
    user_id: Annotated[str, typer.Option("--user", help="Only of this user's sessions.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="Only with this label, key=value; may be repeated.")] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Only of this type, as MESSAGE_RECEIVED; may be repeated.")
    ] = None,
    resume: Annotated[str, typer.Option(help="Begin after this resume token.", show_default=False)] = "",
    *,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the oldest event that is kept.")] = False,
) -> None:
    """Print events as they arrive, one a line, until ^C; a restart of a node does not end it."""
    if resume and from_start:
        raise typer.BadParameter("cannot be combined with --resume", param_hint="--from-start")
    request = watch_pb2.WatchRequest(
        session_ids=session_id,
        user_id=user_id,
        labels=_labels(label),
        types=[_number(event_pb2.Event.Type, "TYPE_", word, "--type") for word in type_ or ()],
    )
    if resume:
        request.resume_token = resume
    elif from_start:
        request.from_start = True
    watch_events(context.obj, request)


@app.command()
def deactivate(context: typer.Context, session_id: SessionId) -> None:
    """Disconnect a session and keep it disconnected; it stays paired."""
    _session_call(context, "Deactivate", session_pb2.DeactivateRequest(session_id=session_id))


@app.command()
def restart(context: typer.Context, session_id: SessionId) -> None:
    """Restart the process of a session now."""
    _session_call(context, "Restart", session_pb2.RestartRequest(session_id=session_id))


@app.command()
def logout(context: typer.Context, session_id: SessionId) -> None:
    """Unlink the device at WhatsApp and erase its credentials."""
    _session_call(context, "Logout", session_pb2.LogoutRequest(session_id=session_id))


@app.command()
def delete(
    context: typer.Context,
    session_id: SessionId,
    *,
    force: Annotated[bool, typer.Option("--force", help="Even if it is paired; the phone keeps it linked.")] = False,
) -> None:
    """Remove a session with its credentials and messages."""
    server: ServerConnection = context.obj
    with server.sessions() as sessions:
        response = server.call(sessions.Delete, session_pb2.DeleteRequest(session_id=session_id, force=force))
        if server.as_json:
            views.print_json(response)


@app.command(name="pairing-code")
def pairing_code(
    context: typer.Context,
    session_id: SessionId,
    phone: Annotated[str, typer.Argument(help="The number of the phone to link, with country code.")],
) -> None:
    """Get a code to type on the phone instead of scanning."""
    server: ServerConnection = context.obj
    with server.sessions() as sessions:
        request = session_pb2.RequestPairingCodeRequest(session_id=session_id, phone=phone)
        response = server.call(sessions.RequestPairingCode, request)
        _show(server, response, lambda shown: print(shown.code))


@app.command()
def download(
    context: typer.Context,
    session_id: SessionId,
    target: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
) -> None:
    """Download the file of a message, whose content is on stdin as JSON (`zapctl --json watch`)."""
    content = content_of(sys.stdin.read())
    request = media_pb2.DownloadRequest(session_id=session_id, content=content)
    print(f"{download_file(context.obj, request, target)} bytes are in {target}")


def main() -> None:
    """Run zapctl."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal cannot encode must not end a watch.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except UnicodeEncodeError:
        # Arguments may be any bytes, but protobuf strings must be valid text.
        print("an argument is not valid UTF-8", file=sys.stderr)
        sys.exit(2)


def _session_call(context: typer.Context, method: str, request: Any) -> None:
    """Call a method that returns a session, and show the session."""
    server: ServerConnection = context.obj
    with server.sessions() as sessions:
        _show(server, server.call(getattr(sessions, method), request), views.print_session)


def _show(server: ServerConnection, response: Any, show: Any) -> None:
    if server.as_json:
        views.print_json(response)
    else:
        show(response)


def _labels(pairs: list[str] | None) -> dict[str, str]:
    labels = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not key=value", param_hint="--label")
        labels[key] = value
    return labels


def _number(enum: Any, prefix: str, word: str, option: str) -> Any:
    """Return the number of a protobuf enum value by its name, with or without its prefix."""
    try:
        return enum.Value(f"{prefix}{word.upper().removeprefix(prefix)}")
    except ValueError:
        known = ", ".join(name.removeprefix(prefix) for name in enum.keys()[1:])
        raise typer.BadParameter(f"{word!r} is none of {known}", param_hint=option) from None
