"""Shows the rotating QR code of a pairing in the terminal until the pairing ends (`zapctl qr`)."""

from collections.abc import Iterable
from contextlib import ExitStack

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from service.cli.connection import ServerConnection
from service.cli.failures import OUTCOME_EXIT_CODES, UNKNOWN_OUTCOME
from service.cli.views import delay_text, outcome_text, print_json
from zap.v1 import session_pb2

TOO_SMALL = "This terminal is too small for the whole code: enlarge it, or see zapctl pairing-code."


def show_codes(server: ServerConnection, session_id: str) -> int:
    """Show the codes of a session's pairing, and return the exit code for its outcome."""
    with server.sessions() as sessions:
        responses = sessions.StreamQR(session_pb2.StreamQRRequest(session_id=session_id), metadata=server.metadata)
        return _as_json(responses) if server.as_json else _in_terminal(responses)


def _as_json(responses: Iterable[session_pb2.StreamQRResponse]) -> int:
    code = UNKNOWN_OUTCOME
    for response in responses:
        print_json(response)
        code = _exit_code(response)
    return code


def _in_terminal(responses: Iterable[session_pb2.StreamQRResponse]) -> int:
    console = Console(highlight=False)
    code = UNKNOWN_OUTCOME
    if console.is_terminal:
        console.print("Waiting for a code to scan …")
    with ExitStack() as stack:
        live, delay = None, ""
        for response in responses:
            update = response.WhichOneof("update")
            if update == "delay":
                stack.close()
                live = None
                if response.reason.code != delay:
                    # Each reason is printed once, not at each attempt.
                    delay = response.reason.code
                    console.print(Text(delay_text(response)))
                    console.file.flush()
            elif update == "code":
                delay = ""
                if not console.is_terminal:
                    # Flushed at once, because a code expires.
                    console.print(_picture(response.code))
                    console.file.flush()
                    continue
                if not _fits(response.code, console):
                    # The alternate screen would cut the code; in the history it can be scrolled to.
                    console.print(Group(_picture(response.code), Text(TOO_SMALL)))
                    continue
                if live is None:
                    # The alternate screen keeps codes out of the terminal's history.
                    live = stack.enter_context(Live(console=console, auto_refresh=False, screen=True))
                live.update(_picture(response.code), refresh=True)
            elif update == "outcome":
                stack.close()
                console.print(Text(outcome_text(response)))
                code = _exit_code(response)
    return code


def _fits(code: session_pb2.QrCode, console: Console) -> bool:
    lines = code.terminal_text.splitlines()
    return console.size.height > len(lines) + 1 and console.size.width >= max(map(len, lines))


def _picture(code: session_pb2.QrCode) -> Group:
    good_until = code.expire_time.ToDatetime().strftime("%H:%M:%S UTC")
    caption = f"Scan it in WhatsApp: Settings > Linked devices. Code {code.position} of 6, good until {good_until}."
    # Light on dark in any terminal, because phones do not read the inverse.
    picture = Text(code.terminal_text, style="bright_white on black", no_wrap=True, overflow="ignore")
    return Group(Text(caption), picture)


def _exit_code(response: session_pb2.StreamQRResponse) -> int:
    return OUTCOME_EXIT_CODES.get(response.outcome, UNKNOWN_OUTCOME)
