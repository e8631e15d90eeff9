"""zapctl as a process would run it, against a server over the core in memory."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from service.cli.zapctl import app
from service.domain.errors import Unavailable
from service.domain.log_positions import LogPosition
from service.domain.pairing import PairingDelayed, PairingEnded, PairingOutcome, PairingStep, ShownCode
from service.domain.records import MessageState
from service.domain.session import Condition, Credentials, Desired, State
from service.domain.watch import LoggedEvent
from service.media.http import MediaHttpClient
from service.ports.processes import CallFailed
from service.protocol.payloads import payload_of
from tests.contents import text_content
from tests.eventually import eventually_in_thread
from tests.fakes.core import code
from tests.fakes.serving import FakeService
from tests.fakes.session_store import NOW
from tests.media_host import MediaHost
from tests.stored_media import stored
from zap.v1 import content_pb2, event_pb2, group_service_pb2, message_pb2, session_pb2
from zap.worker.v1 import contacts_pb2, groups_pb2


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The server is in this process: its logs must not get into what zapctl prints."""
    with capture_logs():
        yield


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FakeService() as service:
        yield service


def zapctl(service: FakeService, *arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, ["--address", service.address, *arguments], input=stdin, env={"ZAP_AUTH_TOKEN": ""})


def test_a_session_is_created_shown_and_listed(service: FakeService) -> None:
    created = zapctl(service, "create", "a", "--name", "Ada", "--label", "team=red", "--proxy-url", "http://u:pw@h:1")
    assert created.exit_code == 0
    for word in ("UNPAIRED", "Ada", "team=red", "http://u:***@h:1"):
        assert word in created.stdout
    zapctl(service, "create", "b")
    service.do(service.sessions.pair, "b")
    assert "CONNECTED" in zapctl(service, "status", "b").stdout
    assert "+4917612345678" in zapctl(service, "status", "b").stdout
    listed = zapctl(service, "list").stdout.splitlines()
    assert [line.split()[0] for line in listed[1:]] == ["a", "b"]
    assert "b" not in [line.split()[0] for line in zapctl(service, "list", "--state", "unpaired").stdout.splitlines()]


def test_who_waits_for_its_turn_is_counted_beside_the_list(service: FakeService) -> None:
    zapctl(service, "create", "a")
    assert "wait for their turn" not in zapctl(service, "list").stderr
    for name in ("b", "c"):
        zapctl(service, "create", name)
        kept = service.sessions.kept[name]
        away = Condition(Desired.ACTIVE, State.RECONNECTING, "NODE_STOPPED", Credentials.CONFIRMED)
        service.do(setattr, kept, "session", replace(kept.session, condition=away, waits_for_start=True))
    listed = zapctl(service, "list")
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == ["a", "b", "c"]
    assert listed.stderr == "2 of 3 sessions wait for their turn to be started\n"
    assert "The session waits for its turn to be started." in zapctl(service, "status", "b").stdout


def test_json_is_one_message_a_line(service: FakeService) -> None:
    zapctl(service, "create", "a")
    zapctl(service, "create", "b")
    lines = zapctl(service, "--json", "list").stdout.splitlines()
    assert [json.loads(line)["sessionId"] for line in lines] == ["a", "b"]
    assert json.loads(zapctl(service, "--json", "status", "a").stdout)["state"] == "STATE_UNPAIRED"


def test_wishes_are_carried_out(service: FakeService) -> None:
    zapctl(service, "create", "a")
    assert "PAIRING" in zapctl(service, "activate", "a").stdout
    service.do(service.sessions.tell, "a", ShownCode(code()))
    assert zapctl(service, "pairing-code", "a", "+4917612345678").stdout == "ABCD-2345\n"
    service.do(service.sessions.pair, "a")
    assert zapctl(service, "restart", "a").exit_code == 0
    assert "DISCONNECTED" in zapctl(service, "deactivate", "a").stdout
    service.do(service.sessions.pair, "a")
    assert "LOGGED_OUT" in zapctl(service, "logout", "a").stdout
    assert zapctl(service, "delete", "a").exit_code == 0
    assert not service.sessions.kept


def test_an_error_is_a_sentence_with_its_reason_and_an_exit_code(service: FakeService) -> None:
    wrong = zapctl(service, "create", "Not An Id", "--proxy-url", "nonsense")
    assert wrong.exit_code == 3
    assert "  session_id: " in wrong.stderr
    unknown = zapctl(service, "status", "unknown")
    assert (unknown.exit_code, unknown.stderr) == (4, "there is no session 'unknown' (SESSION_NOT_FOUND)\n")
    zapctl(service, "create", "a")
    assert zapctl(service, "create", "a", "--name", "x").exit_code == 5
    assert zapctl(service, "qr", "a").exit_code == 6
    service.do(setattr, service.sessions.store, "broken", Unavailable("not now", retry_after=2))
    away = zapctl(service, "status", "a")
    assert (away.exit_code, away.stderr) == (8, "not now (UNAVAILABLE)\n  try again in 2 s\n")
    for result in (wrong, unknown, away):
        assert "Traceback" not in result.output


def test_a_server_that_is_not_there_is_unavailable() -> None:
    result = CliRunner().invoke(app, ["--address", "127.0.0.1:1", "status", "a"])
    assert result.exit_code == 8
    assert "(UNAVAILABLE)" in result.stderr


def test_a_token_is_sent_and_a_wrong_one_is_told() -> None:
    with FakeService("right") as service:
        runner = CliRunner()
        for token, exit_code in (("right", 0), ("wrong", 9), ("", 9)):
            result = runner.invoke(app, ["--address", service.address, "list"], env={"ZAP_AUTH_TOKEN": token})
            assert result.exit_code == exit_code


@pytest.mark.parametrize(
    "arguments",
    [["list", "--state", "HAPPY"], ["create", "--label", "novalue"], ["status"], ["nonsense"]],
)
def test_a_wrong_command_line_is_two(service: FakeService, arguments: list[str]) -> None:
    assert zapctl(service, *arguments).exit_code == 2


@pytest.mark.parametrize(
    ("outcome", "exit_code"),
    [
        (PairingOutcome.PAIRED, 0),
        (PairingOutcome.TIMED_OUT, 20),
        (PairingOutcome.PASSKEY_REQUIRED, 21),
        (PairingOutcome.REJECTED, 22),
        (PairingOutcome.CANCELLED, 23),
    ],
)
def test_qr_ends_with_the_outcome(service: FakeService, outcome: PairingOutcome, exit_code: int) -> None:
    service.sessions.given.clear()
    zapctl(service, "create", "a")
    zapctl(service, "activate", "a")
    service.do(service.sessions.tell, "a", ShownCode(code()))
    reason = "" if outcome is PairingOutcome.PAIRED else "QR_NOT_SCANNED"
    with pairing(service, PairingEnded(outcome, reason)):
        result = zapctl(service, "--json", "qr", "a")
    assert result.exit_code == exit_code
    assert json.loads(result.stdout.splitlines()[-1])["outcome"] == f"PAIRING_OUTCOME_{outcome.value}"


@contextmanager
def pairing(service: FakeService, *steps: PairingStep) -> Iterator[None]:
    """Have the pairing of `a` go these steps, each when the stream has given the one before."""

    def go_on() -> None:
        for number, step in enumerate(steps, 1):
            eventually_in_thread(lambda number=number: len(service.sessions.given) >= number)  # type: ignore[misc]
            if isinstance(step, PairingEnded) and step.outcome is PairingOutcome.PAIRED:
                service.do(service.sessions.pair, "a")
            else:
                service.do(service.sessions.tell, "a", step)

    going = threading.Thread(target=go_on)
    going.start()
    yield
    going.join()


def test_qr_draws_each_code_until_somebody_has_scanned(service: FakeService) -> None:
    zapctl(service, "create", "a")
    zapctl(service, "activate", "a")
    service.do(service.sessions.tell, "a", ShownCode(code(1)))
    with pairing(service, ShownCode(code(2)), PairingEnded(PairingOutcome.PAIRED)):
        result = zapctl(service, "--json", "qr", "a")
    seen = [json.loads(line) for line in result.stdout.splitlines()]
    assert [step["code"]["position"] for step in seen[:-1]] == [1, 2]
    assert seen[-1]["outcome"] == "PAIRING_OUTCOME_PAIRED"
    assert result.exit_code == 0


def test_qr_in_a_terminal_shows_the_picture(service: FakeService) -> None:
    zapctl(service, "create", "a")
    zapctl(service, "activate", "a")
    service.do(service.sessions.tell, "a", ShownCode(code(1)))
    with pairing(service, PairingEnded(PairingOutcome.PAIRED)):
        result = zapctl(service, "qr", "a")
    assert "█" in result.stdout
    assert "Code 1 of 6" in result.stdout
    assert result.stdout.rstrip().endswith("PAIRED")


def test_qr_says_why_there_is_no_code_once_for_each_reason(service: FakeService) -> None:
    zapctl(service, "create", "a")
    zapctl(service, "activate", "a")
    service.do(service.sessions.tell, "a", PairingDelayed("WHATSAPP_UNREACHABLE", NOW))
    with pairing(
        service,
        PairingDelayed("WHATSAPP_UNREACHABLE", None),
        PairingDelayed("PROXY_REFUSED", NOW),
        PairingEnded(PairingOutcome.TIMED_OUT, "PROXY_REFUSED"),
    ):
        result = zapctl(service, "qr", "a")
    said = re.findall(r"no code now \((\w+)\):|^(TIMED_OUT):", result.stdout, re.MULTILINE)
    assert said == [("WHATSAPP_UNREACHABLE", ""), ("PROXY_REFUSED", ""), ("", "TIMED_OUT")]
    assert "Check the network" in result.stdout
    assert result.exit_code == 20


def test_send_says_what_became_of_it(service: FakeService) -> None:
    zapctl(service, "create", "a")
    assert zapctl(service, "send", "a", "4917612345678", "hello").exit_code == 6
    service.do(service.sessions.pair, "a")
    sent = zapctl(service, "send", "a", "4917612345678", "-", "--request-id", "r", stdin="from a pipe")
    assert (sent.exit_code, sent.stdout) == (0, "SENT 3EB01\n")
    assert service.sessions.owner.sent == [text_content("from a pipe")]
    for state, exit_code in ((MessageState.FAILED, 30), (MessageState.OUTCOME_UNKNOWN, 31)):
        is_certain = state is MessageState.FAILED
        service.sessions.owner.refuses_to_send = CallFailed("no", certain=is_certain, is_answer=True)
        service.sending.store.in_library["a", state.value] = "WA1"
        result = zapctl(service, "send", "a", "4917612345678", "hello", "--request-id", state.value)
        assert result.exit_code == exit_code
        assert result.stdout.startswith(state.value)


def test_a_text_replies_to_a_sent_message(service: FakeService) -> None:
    zapctl(service, "create", "a")
    service.do(service.sessions.pair, "a")
    zapctl(service, "send", "a", "4917612345678", "hello", "--request-id", "r")
    assert zapctl(service, "send", "a", "4917612345678", "again", "--reply-to", "r").exit_code == 0
    content = message_pb2.SendRequest.FromString(service.sessions.owner.sent[-1].data)
    assert (content.reply_to.message_id, content.reply_to.from_me) == ("3EB01", True)
    unknown = zapctl(service, "send", "a", "4917612345678", "again", "--reply-to", "never")
    assert "MESSAGE_NOT_FOUND" in unknown.stderr


@pytest.mark.parametrize(
    ("is_resend_failed", "words"), [(False, "it is sent again when the device asks"), (True, "could not be sent again")]
)
def test_send_says_that_a_device_cannot_read_what_was_sent(
    service: FakeService, is_resend_failed: bool, words: str
) -> None:
    zapctl(service, "create", "a")
    service.do(service.sessions.pair, "a")
    arguments = ("send", "a", "4917612345678", "hello", "--request-id", "r")
    zapctl(service, *arguments)
    messages = service.sending.store.kept
    messages["a", "r"] = replace(messages["a", "r"], unreadable_since=NOW, is_resend_failed=is_resend_failed)
    shown = zapctl(service, *arguments)
    assert (shown.exit_code, shown.stdout.splitlines()[0]) == (0, "SENT 3EB01")
    assert "could not read it" in shown.stdout
    assert words in shown.stdout


def logged(number: int, session_id: str = "shop", kind: str = "RECEIPT") -> LoggedEvent:
    payloads = {
        "RECEIPT": event_pb2.Event(receipt=event_pb2.Receipt(message_ids=["M1"])),
        "MESSAGE_RECEIVED": event_pb2.Event(
            message_received=event_pb2.MessageReceived(text="grün\nand \x1b[2J\x9b", raw=b"bulk")
        ),
        "STATE_CHANGED": event_pb2.Event(state_changed=event_pb2.StateChanged(to=session_pb2.Session.STATE_CONNECTED)),
    }
    return LoggedEvent(LogPosition(9, number), session_id, number, NOW, NOW, kind, payloads[kind].SerializeToString())


class Watched:
    """`zapctl watch` in a process of its own, as ^C and pipes reach it."""

    def __init__(self, service: FakeService, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "--address", service.address, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lines(self, count: int) -> list[str]:
        """The next lines; they are there although nobody has ended it."""
        assert self.process.stdout is not None
        return [self.process.stdout.readline() for _ in range(count)]

    def interrupt(self) -> tuple[int, str]:
        """^C; its exit code, and what it said beside the events."""
        self.process.send_signal(signal.SIGINT)
        _, beside = self.process.communicate(timeout=20)
        return self.process.returncode, beside


def test_watch_prints_a_line_for_each_event_until_it_is_interrupted(service: FakeService) -> None:
    service.watching.logged += [logged(1), logged(2, kind="MESSAGE_RECEIVED"), logged(3, kind="STATE_CHANGED")]
    watched = Watched(service, "watch", "--from-start")
    receipt, message, state = watched.lines(3)
    assert receipt == '2026-03-01 12:00:00 UTC  shop  1  RECEIPT  {"messageIds": ["M1"]}\n'
    assert message.endswith('shop  2  MESSAGE_RECEIVED  {"text": "grün\\nand \\u001b[2J\\x9b"}\n')
    assert state.endswith("shop  3  STATE_CHANGED  UNSPECIFIED -> CONNECTED\n")
    # Interrupted right after a line, it gives that one out again: at least once, never less.
    assert watched.interrupt() in [(0, f"resume with --resume {token}\n") for token in (2, 3)]


def test_watch_prints_what_was_asked_for_from_where_it_was_asked_for(service: FakeService) -> None:
    service.watching.logged += [logged(1), logged(2), logged(3, "other"), logged(4, kind="MESSAGE_RECEIVED"), logged(5)]
    watched = Watched(service, "--json", "watch", "shop", "--type", "receipt", "--resume", "1")
    steps = [json.loads(line) for line in watched.lines(4)]
    assert [step.get("event", {}).get("sequence") for step in steps] == [None, "2", "5", None]
    assert [step["resumeToken"] for step in steps] == ["1", "2", "5", "5"]
    assert steps[-1]["bookmark"]["isCaughtUp"]
    assert watched.interrupt()[0] == 0


def test_watch_goes_on_where_it_was_when_its_node_is_gone(service: FakeService) -> None:
    service.watching.logged += [logged(1), logged(2)]
    watched = Watched(service, "watch", "--from-start")
    watched.lines(2)
    service.do(service.watching.logged.append, logged(3))
    service.run(service.server.drain())
    service.restart()
    (third,) = watched.lines(1)
    assert "shop  3  RECEIPT" in third
    code, beside = watched.interrupt()
    assert code == 0
    assert "(NODE_DRAINING)" in beside


def test_watch_ends_when_nobody_reads_what_it_prints(service: FakeService) -> None:
    service.watching.logged += [logged(number) for number in range(1, 5000)]
    watched = Watched(service, "watch", "--from-start")
    watched.lines(1)
    assert watched.process.stdout is not None
    assert watched.process.stderr is not None
    watched.process.stdout.close()
    assert (watched.process.wait(20), watched.process.stderr.read()) == (0, "")


def test_watch_ends_with_an_error_that_trying_again_does_not_mend(service: FakeService) -> None:
    forged = zapctl(service, "watch", "--resume", "forged")
    assert (forged.exit_code, forged.stderr) == (
        3,
        "the request is wrong (RESUME_TOKEN_INVALID)\n  resume_token: is not ours\n",
    )
    assert zapctl(service, "watch", "--resume", "1", "--from-start").exit_code == 2
    assert zapctl(service, "watch", "--type", "nonsense").exit_code == 2
    service.do(setattr, service.watching, "broken", Unavailable("not now", retry_after=2))
    assert zapctl(service, "watch").exit_code == 8, "it never stood"


def test_numbers_are_checked(service: FakeService) -> None:
    zapctl(service, "create", "a")
    service.do(service.sessions.pair, "a")
    service.contacts.numbers["222"] = "4917612345678"
    answer = contacts_pb2.CheckedNumber(number="4917612345678", is_on_whatsapp=True, jid="222@lid")
    service.sessions.owner.results["zap.worker.v1.CheckNumbers"] = payload_of(
        contacts_pb2.CheckedNumbers(numbers=[answer])
    )
    checked = zapctl(service, "contacts", "check", "a", "+4917612345678", "abc")
    assert checked.exit_code == 0
    header, found, invalid = checked.stdout.splitlines()
    assert header.split() == ["NUMBER", "RESULT", "PHONE", "LID", "BUSINESS"]
    assert found.split() == ["+4917612345678", "ON_WHATSAPP", "+4917612345678", "222@lid"]
    assert invalid.split() == ["abc", "INVALID"]
    lines = zapctl(service, "--json", "contacts", "check", "a", "+4917612345678", "abc").stdout.splitlines()
    assert [json.loads(line)["result"] for line in lines] == ["RESULT_ON_WHATSAPP", "RESULT_INVALID"]


def test_contacts_are_listed_and_shown(service: FakeService) -> None:
    zapctl(service, "create", "a")
    service.contacts.numbers["222"] = "4917612345678"
    service.contacts.rows["a", "222@lid"] = {"full_name": "Ada Full", "push_name": "ada"}
    service.contacts.rows["a", "333@lid"] = {"push_name": "[red]Bea"}
    listed = zapctl(service, "contacts", "list", "a").stdout.splitlines()
    assert listed[1].split() == ["+4917612345678", "222@lid", "Ada", "Full", "ada"]
    assert listed[2].split() == ["333@lid", "[red]Bea"]
    assert len(zapctl(service, "contacts", "list", "a", "--saved").stdout.splitlines()) == 2
    (found,) = zapctl(service, "--json", "contacts", "list", "a", "--search", "BEA").stdout.splitlines()
    assert json.loads(found)["address"]["lid"] == "333@lid"
    shown = zapctl(service, "contacts", "get", "a", "4917612345678")
    assert "Ada Full" in shown.stdout
    missing = zapctl(service, "contacts", "get", "a", "4917600000000")
    assert missing.exit_code == zapctl(service, "status", "b").exit_code != 0
    assert "CONTACT_NOT_FOUND" in missing.stderr


def test_all_pages_of_contacts_are_listed(service: FakeService) -> None:
    zapctl(service, "create", "a")
    service.contacts.rows = {("a", f"{number}@lid"): {"push_name": "x"} for number in range(10_000, 11_001)}
    assert len(zapctl(service, "--json", "contacts", "list", "a").stdout.splitlines()) == 1001


def test_a_file_of_a_message_is_written_once_it_is_checked(tmp_path: Path) -> None:
    body, media = stored(b"x" * 100_000)
    host = MediaHost(bodies={"/v/t62/1.enc": body})
    content = content_pb2.Content(
        kind=content_pb2.Content.KIND_DOCUMENT,
        media=content_pb2.MediaContent(
            direct_path=media.direct_path,
            media_key=media.media_key,
            encrypted_sha256=media.encrypted_sha256,
            sha256=media.sha256,
        ),
    )
    target = tmp_path / "file"
    with FakeService(http=MediaHttpClient(host.context)) as service, ExitStack() as stack:
        listening = host.listening()
        proxy = service.run(listening.__aenter__())
        stack.callback(lambda: service.run(listening.__aexit__(None, None, None)))
        zapctl(service, "create", "a", "--proxy-url", f"http://{proxy}")
        done = zapctl(service, "download", "a", str(target), stdin=MessageToJson(content))
        assert (done.exit_code, target.read_bytes()) == (0, b"x" * 100_000)
        content.media.sha256 = bytes(32)
        damaged = zapctl(service, "download", "a", str(tmp_path / "other"), stdin=MessageToJson(content))
        assert damaged.exit_code == 13
        assert "MEDIA_DAMAGED" in damaged.stderr
        assert zapctl(service, "download", "a", str(target), stdin="no JSON").exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


CHESS = group_service_pb2.Group(
    jid="12036@g.us", settings=group_service_pb2.GroupSettings(name="Chess club"), participant_count=2
)


def connected(service: FakeService, request: str, result: Message) -> None:
    """Session a is connected, and its process answers this."""
    if "a" not in service.sessions.kept:
        zapctl(service, "create", "a")
        service.do(service.sessions.pair, "a")
    service.sessions.owner.results[f"zap.worker.v1.{request}"] = payload_of(result)


def test_groups_are_listed_and_their_members_shown(service: FakeService) -> None:
    connected(service, "ListGroups", groups_pb2.GroupPage(groups=[CHESS]))
    header, line = zapctl(service, "groups", "list", "a").stdout.splitlines()
    assert header.split() == ["GROUP", "MEMBERS", "KIND", "NAME"]
    assert line.split() == ["12036@g.us", "2", "group", "Chess", "club"]
    full = group_service_pb2.Group()
    full.CopyFrom(CHESS)
    full.participants.add(is_admin=True, is_creator=True).address.phone = "+49151"
    full.participants.add().address.lid = "222@lid"
    connected(service, "GetGroup", full)
    _, creator, member = zapctl(service, "groups", "get", "a", "12036@g.us").stdout.splitlines()
    assert (creator.split(), member.split()) == (["+49151", "creator"], ["222@lid", "member"])
    (shown,) = zapctl(service, "--json", "groups", "get", "a", "12036@g.us").stdout.splitlines()
    assert json.loads(shown)["settings"]["name"] == "Chess club"


def test_all_pages_of_groups_are_listed(service: FakeService) -> None:
    pages = [groups_pb2.GroupPage(groups=[CHESS], has_more=True), groups_pb2.GroupPage(groups=[CHESS])]
    connected(service, "ListGroups", pages[1])
    first = groups_pb2.ListGroups(limit=1000)
    service.sessions.owner.answers[payload_of(first)] = payload_of(pages[0])
    assert len(zapctl(service, "--json", "groups", "list", "a").stdout.splitlines()) == 2


def test_a_group_is_created_joined_and_left(service: FakeService) -> None:
    refused = group_service_pb2.ParticipantResult(
        result=group_service_pb2.ParticipantResult.RESULT_INVITATION_NEEDED, code=403
    )
    connected(service, "CreateGroup", groups_pb2.CreatedGroup(group=CHESS, results=[refused]))
    created = zapctl(service, "groups", "create", "a", "Chess club", "+4917612345678").stdout.splitlines()
    assert created[0] == "12036@g.us"
    assert created[2].split() == ["+4917612345678", "INVITATION_NEEDED", "403"]
    link = "https://chat.whatsapp.com/AbCdEfGhIjKl"
    connected(service, "GetInviteLink", group_service_pb2.InviteLink(link=link))
    assert zapctl(service, "groups", "invite", "a", "12036@g.us").stdout == f"{link}\n"
    assert zapctl(service, "groups", "invite", "a", "12036@g.us", "--reset").stdout == f"{link}\n"
    assert [call.data for call in service.sessions.owner.calls[-2:]] == [
        groups_pb2.GetInviteLink(group="12036@g.us").SerializeToString(),
        groups_pb2.GetInviteLink(group="12036@g.us", is_reset=True).SerializeToString(),
    ]
    waiting = group_service_pb2.JoinGroupResponse.STATE_WAITING_FOR_APPROVAL
    connected(service, "JoinGroup", group_service_pb2.JoinGroupResponse(group="12036@g.us", state=waiting))
    joined = zapctl(service, "groups", "join", "a", link).stdout.splitlines()
    assert joined[1].split() == ["12036@g.us", "WAITING_FOR_APPROVAL"]
    connected(service, "LeaveGroup", Empty())
    assert zapctl(service, "groups", "leave", "a", "12036@g.us").exit_code == 0
