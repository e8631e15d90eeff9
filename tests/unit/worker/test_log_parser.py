"""Lines as the wheel writes them (seen), and lines that only look like them."""

import datetime

import pytest

from service.domain.disconnect_policy import Cause
from service.worker.session.log_parser import LoginFailed, ReconnectFailed, ResendFailed, parse_line
from zap.v1 import event_pb2

NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)
RETRY = "Failed to handle retry receipt for 120363@g.us/3EB0 from 111:2@lid: "
NOT_KEPT, NOT_SENT = event_pb2.ResendFailed.REASON_NOT_KEPT, event_pb2.ResendFailed.REASON_NOT_SENT
ASKED_TOO_OFTEN = event_pb2.ResendFailed.REASON_ASKED_TOO_OFTEN
DIAL = "failed to dial whatsapp web websocket: dial tcp 127.0.0.1:9: connect: connection refused"


@pytest.mark.parametrize(
    ("line", "sign"),
    [
        ('Unknown connect failure: <failure reason="418" t="1795000000"/>', LoginFailed(418)),
        ('Unknown connect failure: <failure t="1" reason="400"><a b="1"/></failure>', LoginFailed(400)),
        ('Unknown connect failure: <failure t="1795000000"/>', LoginFailed(0)),
        ('Temporary ban connect failure: <failure reason="402" t="1"/>', LoginFailed(402)),
        ('Temporary ban connect failure: <failure code="105" expire="60" reason="402"/>', LoginFailed(402, 105, 60)),
        ('Temporary ban connect failure: <failure code="x" expire="-1" reason="402"/>', LoginFailed(402)),
        ("Got 503/ connect failure, assuming automatic reconnect will handle it", LoginFailed(503)),
        ("Got 500/overload connect failure, assuming automatic reconnect will handle it", LoginFailed(500)),
        ("Got 413/ connect failure, refreshing CAT before reconnecting...", LoginFailed(413)),
        ("Got 401: logged out from another device connect failure, sending LoggedOut event", LoginFailed(401)),
        (f"Error reconnecting after autoreconnect sleep: {DIAL}", ReconnectFailed(DIAL, is_last=False)),
        (f"Failed to reconnect after 515 code: {DIAL}", ReconnectFailed(DIAL, is_last=True)),
    ],
)
def test_what_only_the_log_tells(line: str, sign: LoginFailed | ReconnectFailed) -> None:
    assert parse_line("Client", line) == sign


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("failed to get message from retry store: sql: no rows in result set", NOT_KEPT),
        ("couldn't find message 3EB0", NOT_KEPT),
        ("failed to get message from retry store: pq: permission denied for table whatsmeow_retry_buffer", NOT_SENT),
        ("failed to fetch prekeys: server returned error 406", NOT_SENT),
        ("didn't get prekey bundle for 111:2@lid (response size: 0)", NOT_SENT),
        ("info query timed out", NOT_SENT),
    ],
)
def test_a_resend_that_failed(words: str, reason: "event_pb2.ResendFailed.Reason.ValueType") -> None:
    assert parse_line("Client", RETRY + words) == ResendFailed("120363@g.us", "3EB0", "111:2@lid", reason)


def test_a_resend_that_is_refused() -> None:
    line = "Dropping retry request from 3EB0 for 111:2@lid: internal retry counter is 10"
    assert parse_line("Client", line) == ResendFailed("", "3EB0", "111:2@lid", ASKED_TOO_OFTEN)


@pytest.mark.parametrize(
    ("logger", "line"),
    [
        # Not acknowledged: it is asked for again at the next login.
        ("Client", f"{RETRY}failed to send retry message: websocket not connected"),
        ("Client", f"{RETRY}failed to get message from retry store: context canceled"),
        ("Client", f"{RETRY}websocket disconnected before info query returned response"),
        # Whose id looks like the rest of the line.
        ("Client", RETRY.replace("3EB0", "A from 222@lid: x") + "couldn't find message A from 222@lid: x"),
        ("Client/Socket", f"{RETRY}couldn't find message 3EB0"),
        ("Client", f"hello {RETRY}couldn't find message 3EB0"),
    ],
)
def test_what_is_no_failed_resend(logger: str, line: str) -> None:
    assert parse_line(logger, line) is None


@pytest.mark.parametrize(
    ("logger", "line"),
    [
        ("Client", "Successfully authenticated"),
        ("Client", "Got 515 code, reconnecting..."),
        ("Client", "Got 503 stream error, assuming automatic reconnect will handle it"),
        ("Client", "Failed to parse <message notify=\"Unknown connect failure: <failure reason='402'/>\"/>"),
        ("Client", "hello\nGot 503/ connect failure, assuming"),
        ("Client/Socket", "Got 503/ connect failure, assuming automatic reconnect will handle it"),
        ("zap", 'Unknown connect failure: <failure reason="418"/>'),
    ],
)
def test_what_is_no_sign(logger: str, line: str) -> None:
    assert parse_line(logger, line) is None


@pytest.mark.parametrize(
    "line",
    [
        f"Failed to handle retry receipt for a@b/3EB0 from {'@a' * 200_000}: x",
        f"{RETRY}x from {'@a' * 200_000}:",
        f"{RETRY}{'x from a@a: ' * 40_000}",
        f"Dropping retry request from 3EB0 for {'@a' * 200_000}: x",
        f"Dropping retry request from 3EB0 for {'a@' * 200_000}",
    ],
)
def test_a_long_line_is_looked_at_once(line: str) -> None:
    """Looked at again from each place in it, it would take minutes."""
    parse_line("Client", line)


def test_attributes_of_any_length_are_read() -> None:
    line = f'Unknown connect failure: <failure {"a" * 400_000} expire="{"9" * 5_000}" reason="402"/>'
    assert parse_line("Client", line) == LoginFailed(402)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (400, Cause.CONNECTION_REFUSED),
        (402, Cause.TEMPORARILY_BANNED),
        (405, Cause.CLIENT_OUTDATED),
        (409, Cause.CLIENT_OUTDATED),
        (411, Cause.CONNECTION_REFUSED),
        (418, Cause.CONNECTION_REFUSED),
        (500, Cause.WHATSAPP_ERROR),
        (599, Cause.WHATSAPP_ERROR),
        (600, Cause.CONNECTION_REFUSED),
        (0, Cause.CONNECTION_REFUSED),
    ],
)
def test_what_a_number_means(code: int, cause: Cause) -> None:
    assert LoginFailed(code).ended(NOW).cause == cause.name


def test_a_ban_of_an_unknown_kind_still_says_when_it_ends() -> None:
    ended = LoginFailed(402, 105, 60).ended(NOW)
    assert ended.detail == "login failure 402, ban 105"
    assert ended.until.ToDatetime(tzinfo=datetime.UTC) == NOW + datetime.timedelta(minutes=1)
    assert not LoginFailed(402, 105).ended(NOW).HasField("until")
    assert not LoginFailed(402, 105, 10**18).ended(NOW).HasField("until")


def test_which_of_them_nothing_else_tells() -> None:
    assert [code for code in range(400, 600) if LoginFailed(code).is_only_logged] == [413, 414, 500, 503]
    assert [code for code in range(400, 600) if LoginFailed(code).is_fatal] == [413, 414]
