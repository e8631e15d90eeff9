"""How the relay gets a connection: it waits, tries again and goes on to another server, and the library only waits."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from service.pgrelay import ack_gate
from service.pgrelay import relay as relay_module
from tests.eventually import eventually_in_thread
from tests.fakes.postgres_messages import (
    AUTHENTICATED,
    CANCEL_REQUEST,
    GSS_REQUEST,
    PASSWORD_WANTED,
    QUERY,
    READY,
    ROW,
    SSL_REQUEST,
    TERMINATE,
    error,
    message,
    startup,
)
from tests.fakes.relayed import Relayed, at, is_silent, receive
from tests.fakes.scripted_postgres import (
    WELCOME,
    Script,
    ScriptedPostgres,
    hang_up,
    keep_silent,
    read_startup,
    refuse,
    reset,
    welcome,
)

STARTUP = startup(user="me", database="db")
HELLO = b"".join(WELCOME)


def welcome_and_leave(connection: socket.socket) -> None:
    """Let a client in, and hang up when it has nothing to ask."""
    read_startup(connection)
    connection.sendall(HELLO)
    hang_up(connection)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def log_in(relay: Relayed, door: int = 1) -> socket.socket:
    connection = relay.connect(door)
    connection.sendall(STARTUP)
    assert receive(connection, len(HELLO)) == HELLO
    return connection


def test_the_startup_message_is_passed_on_as_it_is() -> None:
    heard: list[bytes] = []

    def script(connection: socket.socket) -> None:
        heard.append(read_startup(connection))
        connection.sendall(HELLO)
        keep_silent(connection)

    with ScriptedPostgres(script) as server, Relayed(at(server.port)) as relay, log_in(relay):
        assert heard == [STARTUP]


def test_it_may_come_byte_by_byte() -> None:
    with ScriptedPostgres(welcome) as server, Relayed(at(server.port)) as relay, relay.connect() as client:
        for byte in STARTUP:
            client.send(bytes([byte]))
            time.sleep(0.001)
        assert receive(client, len(HELLO)) == HELLO


@pytest.mark.parametrize("request_", [SSL_REQUEST, GSS_REQUEST])
def test_encryption_is_declined(request_: bytes) -> None:
    with ScriptedPostgres(welcome) as server, Relayed(at(server.port)) as relay, relay.connect() as client:
        client.sendall(request_)
        assert client.recv(1) == b"N"
        client.sendall(STARTUP)
        assert receive(client, len(HELLO)) == HELLO
        assert len(server.connections) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        hang_up,
        reset,
        refuse(b""),
        refuse(error("FATAL", "57P03", "the database system is starting up")),
        refuse(error("FATAL", "53300", "sorry, too many clients already")),
        refuse(error("FATAL", "28000", "no pg_hba.conf entry")),
        refuse(error("FATAL", "08P01", "no such database")),
        refuse(AUTHENTICATED + error("FATAL", "53300", "remaining connection slots are reserved")),
        refuse(b"Ecould not fork new process for connection: Cannot allocate memory\n\0"),
        refuse(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        refuse(PASSWORD_WANTED[:-2]),
    ],
)
def test_before_the_client_has_answered_everything_is_tried_again(refusal: Script) -> None:
    with ScriptedPostgres(refusal, refusal, refusal, welcome) as server, Relayed(at(server.port)) as relay:
        began = time.monotonic()
        with log_in(relay):
            assert 0.5 < time.monotonic() - began < 5
        assert len(server.connections) == 4
        assert relay.losses == []
        assert [level for level, _ in relay.lines] == ["warning", "info"], "the first failure, and its end"


def test_a_server_that_is_not_there_is_waited_for() -> None:
    port = free_port()
    with Relayed(at(port)) as relay, relay.connect() as client:
        client.sendall(STARTUP)
        assert is_silent(client, 1.0)
        assert "refused" in relay.relay.trouble
        with ScriptedPostgres(welcome, port=port):
            assert receive(client, len(HELLO)) == HELLO
        assert relay.relay.trouble == ""


def test_a_name_that_nobody_knows_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    calls = 0

    def unknown_at_first(host: str, *arguments: object, **more: object) -> object:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve("127.0.0.1", *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", unknown_at_first)
    with ScriptedPostgres(welcome) as server:
        database = at(server.port)
        database.servers[0].host = "postgres.invalid"
        with Relayed(database) as relay, log_in(relay):
            assert calls == 3


def test_a_server_that_never_answers_is_tried_again_after_the_bound() -> None:
    database_bound = 1
    with ScriptedPostgres(keep_silent, welcome) as server:
        with Relayed(at(server.port, connect_timeout=database_bound)) as relay, log_in(relay):
            pass
        assert len(server.connections) == 2
        assert "did not answer in time" in relay.lines[0][1] or "timed out" in relay.lines[0][1]


def test_after_the_client_has_answered_a_refusal_is_a_loss() -> None:
    def script(connection: socket.socket) -> None:
        read_startup(connection)
        connection.sendall(PASSWORD_WANTED)
        connection.recv(100)
        connection.sendall(error("FATAL", "28P01", 'password authentication failed for user "me"'))
        hang_up(connection)

    with ScriptedPostgres(script) as server, Relayed(at(server.port)) as relay, relay.connect() as client:
        client.sendall(STARTUP)
        assert client.recv(100) == PASSWORD_WANTED
        client.sendall(message("p", b"secret\0"))
        assert relay.lost() == 'FATAL 28P01: password authentication failed for user "me"'
        assert is_silent(client)


def test_a_client_that_gives_up_is_not_dialled_for_any_more() -> None:
    with ScriptedPostgres(refuse(error("FATAL", "57P03", "starting up"))) as server, Relayed(at(server.port)) as relay:
        client = relay.connect()
        client.sendall(STARTUP)
        eventually_in_thread(lambda: len(server.connections) == 2, "a second try")
        client.close()
        eventually_in_thread(
            lambda: "relay-dial" not in [thread.name for thread in threading.enumerate()], "the end of the dial"
        )
        assert relay.losses == []


@pytest.mark.parametrize("said", [b"", STARTUP[:7], b"GET / HTTP/1.1\r\n\r\n"])
def test_a_client_that_leaves_early_or_speaks_something_else_is_no_loss(said: bytes) -> None:
    with ScriptedPostgres(welcome) as server, Relayed(at(server.port)) as relay:
        for _ in range(3):
            client = relay.connect()
            client.sendall(said)
            client.close()
        with log_in(relay):
            pass
        assert relay.losses == []


def test_a_request_to_cancel_reaches_the_server_and_the_client_an_end() -> None:
    heard: list[bytes] = []

    def script(connection: socket.socket) -> None:
        heard.append(connection.recv(100))

        connection.shutdown(socket.SHUT_RDWR)

    with ScriptedPostgres(script) as server, Relayed(at(server.port)) as relay, relay.connect() as client:
        client.sendall(CANCEL_REQUEST)
        assert client.recv(1) == b""
        assert heard == [CANCEL_REQUEST]
        assert relay.losses == []


def test_a_request_to_cancel_that_cannot_be_delivered_is_no_loss() -> None:
    with Relayed(at(free_port())) as relay, relay.connect() as client:
        client.sendall(CANCEL_REQUEST)
        assert client.recv(1) == b""
        assert relay.losses == []


# --- the loss


def test_a_loss_is_told_once_and_what_is_lost_is_silent() -> None:
    with ScriptedPostgres(welcome) as server, Relayed(at(server.port)) as relay:
        clients = [log_in(relay) for _ in range(3)]
        for client in clients:
            client.sendall(QUERY)
        eventually_in_thread(lambda: all(splice.waiting_since for splice in relay.relay._proxies), "all to wait")
        for connection in server.connections:
            connection.shutdown(socket.SHUT_RDWR)
        assert "closed the connection" in relay.lost()
        for client in clients:
            assert is_silent(client, 0.2)
            client.close()
        assert len(relay.losses) == 1


def test_an_idle_connection_that_is_lost_is_closed_and_another_one_waits_for_its_server() -> None:
    with ScriptedPostgres(welcome_and_leave, hang_up, hang_up, welcome) as server, Relayed(at(server.port)) as relay:
        idle = log_in(relay)
        assert idle.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            idle.sendall(QUERY)
        log_in(relay).close()
        assert relay.losses == []


def test_a_name_that_cannot_be_one_is_a_trouble_like_others() -> None:
    database = at(1)
    database.servers[0].host = f"{'x' * 64}.invalid"
    with Relayed(database) as relay, relay.connect() as client:
        client.sendall(STARTUP)
        eventually_in_thread(lambda: "label" in relay.relay.trouble, "words")


def test_what_is_not_lost_goes_on_until_the_end() -> None:
    def answer(connection: socket.socket) -> None:
        welcome_only(connection)
        while connection.recv(100):
            connection.sendall(READY)

    with ScriptedPostgres(welcome, answer) as server, Relayed(at(server.port)) as relay:
        lost, healthy = log_in(relay), log_in(relay)
        eventually_in_thread(lambda: len(server.connections) == 2, "both")
        lost.sendall(QUERY[:1])
        eventually_in_thread(lambda: any(splice._is_asking for splice in relay.relay._proxies), "it to be read")
        hang_up(server.connections[0])
        relay.lost()
        assert is_silent(lost)
        for client in (healthy, log_in(relay)):
            client.sendall(QUERY)
            assert receive(client, len(READY)) == READY
        assert len(relay.losses) == 1


def test_thousands_may_knock_and_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go does not wait for a place in the queue: it would be told an error. Even if the relay has ended by a fault."""
    with ScriptedPostgres(welcome) as server, Relayed(at(server.port)) as relay:
        monkeypatch.setattr(relay_module.Relay, "_accept", lambda *_: 1 / 0)
        relay.connect()
        assert "ZeroDivisionError" in relay.lost()
        knocking = []
        for _ in range(300):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            client.connect(f"\0{relay.host[1:]}/.s.PGSQL.1")
            knocking.append(client)
        for client in knocking:
            client.close()


def test_a_server_that_owes_an_answer_for_too_long_is_lost() -> None:
    with (
        ScriptedPostgres(welcome) as server,
        Relayed(at(server.port), answer_timeout=0.5) as relay,
        log_in(relay) as client,
    ):
        time.sleep(1.0)
        assert relay.losses == [], "nothing was asked"
        client.sendall(QUERY)
        began = time.monotonic()
        assert relay.lost() == "Postgres has not answered for 0.5 s"
        assert time.monotonic() - began > 0.4
        assert is_silent(client)


def test_after_a_slow_event_a_silent_server_is_lost_sooner_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ack_gate, "SLOW_EVENT_S", 0.2)
    monkeypatch.setattr(relay_module, "DOUBTED_TIMEOUT_S", 1.0)
    answers = threading.Event()

    def script(connection: socket.socket) -> None:
        welcome_only(connection)
        for _ in range(2):
            connection.recv(1000)
            answers.wait(1.5)
            answers.clear()
            connection.sendall(READY)
        connection.recv(1000)
        connection.recv(1000)

    with (
        ScriptedPostgres(script) as server,
        Relayed(at(server.port), answer_timeout=20.0) as relay,
        log_in(relay) as client,
    ):
        with relay.gate.handling(is_message=True):
            time.sleep(0.6)
        answers.set()
        client.sendall(QUERY)
        assert receive(client, len(READY)) == READY
        client.sendall(QUERY)
        assert receive(client, len(READY)) == READY, "late: it has answered since the slow event"
        with relay.gate.handling(is_message=True):
            time.sleep(0.6)
        client.sendall(QUERY)
        assert relay.lost() == "Postgres has not answered for 1 s"


def test_a_server_that_answers_slowly_is_not_lost() -> None:
    def script(connection: socket.socket) -> None:
        welcome_only(connection)
        connection.recv(100)
        for _ in range(5):
            time.sleep(0.3)
            connection.sendall(ROW)
        connection.sendall(READY)
        keep_silent(connection)

    with ScriptedPostgres(script) as server, Relayed(at(server.port), answer_timeout=0.6) as relay:
        with log_in(relay) as client:
            client.sendall(QUERY)
            assert receive(client, len(ROW) * 5 + len(READY)) == ROW * 5 + READY
            time.sleep(1.0)
        assert relay.losses == []


def welcome_only(connection: socket.socket) -> None:
    read_startup(connection)
    connection.sendall(HELLO)


def test_a_server_may_take_its_time_if_nobody_says_otherwise() -> None:
    with ScriptedPostgres(welcome) as server, Relayed(at(server.port), answer_timeout=None) as relay:
        with log_in(relay) as client:
            client.sendall(QUERY)
            assert is_silent(client, 1.0)
        assert relay.losses == []


def test_a_fault_of_the_relay_s_own_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("nobody expected this")

    with ScriptedPostgres(welcome) as server, Relayed(at(server.port)) as relay, log_in(relay) as client:
        monkeypatch.setattr(relay_module.Relay, "_pump", fail)
        # More than once: the thread may still be busy with what came before.
        eventually_in_thread(lambda: client.send(QUERY) > 0 and bool(relay.losses), "a loss")
        assert relay.losses == ["the relay failed: ValueError: nobody expected this"]
        assert is_silent(client)


def test_clients_that_close_in_every_way_are_no_loss() -> None:
    with ScriptedPostgres(welcome) as server, Relayed(at(server.port)) as relay:
        descriptors = open_descriptors()
        for goodbye in (TERMINATE, b"", QUERY, QUERY + TERMINATE) * 5:
            with log_in(relay) as client:
                client.sendall(goodbye)
        eventually_in_thread(lambda: all(map(is_closed, server.connections)), "the servers' ends")
        for connection in server.connections:
            connection.close()
        server.connections.clear()
        eventually_in_thread(lambda: open_descriptors() <= descriptors, "no descriptor left behind")
        assert relay.losses == []


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.fileno() < 0 or connection.recv(1000, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


# --- several servers


def test_a_server_that_refuses_is_passed_over_at_once_while_another_one_answers() -> None:
    with ScriptedPostgres(welcome) as server, Relayed(at(free_port(), server.port)) as relay:
        with relay.connect(1) as client:
            client.sendall(STARTUP)
            began = time.monotonic()
            assert client.recv(1) == b"", "the library goes on to the next"
            assert time.monotonic() - began < 3.0
        with log_in(relay, 2):
            pass
        assert relay.losses == []


def test_two_servers_that_refuse_are_waited_for() -> None:
    starting = refuse(error("FATAL", "57P03", "the database system is starting up"))
    port = free_port()
    with ScriptedPostgres(starting) as server, Relayed(at(port, server.port)) as relay, relay.connect(1) as client:
        client.sendall(STARTUP)
        assert is_silent(client, 1.5), "the other one listens, but does not let anybody in"
        with ScriptedPostgres(welcome, port=port):
            assert receive(client, len(HELLO)) == HELLO


def test_who_has_been_everywhere_hears_no_error() -> None:
    with (
        ScriptedPostgres(welcome) as one,
        ScriptedPostgres(welcome) as other,
        Relayed(at(one.port, other.port)) as relay,
        log_in(relay, 1),
        log_in(relay, 2),
        relay.connect(3) as client,
    ):
        assert relay.ports == [1, 2, 3]
        client.sendall(STARTUP)
        assert "none of the servers is of use" in relay.lost()
        assert is_silent(client)


def test_a_single_server_that_may_be_the_wrong_one_is_no_error_either() -> None:
    with ScriptedPostgres(welcome) as server:
        with Relayed(at(server.port)) as relay:
            assert relay.ports == [1]
        with Relayed(at(server.port, is_choosy=True)) as relay:
            assert relay.ports == [1, 2]


# --- who may use it


def test_another_process_is_turned_away() -> None:
    with ScriptedPostgres(welcome) as server, Relayed(at(server.port)) as relay:
        script = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('\\0' + sys.argv[1]);"
            "s.settimeout(10); print(s.recv(1))"
        )
        address = f"{relay.host[1:]}/.s.PGSQL.1"
        stranger = subprocess.run(
            [sys.executable, "-c", script, address], capture_output=True, timeout=30, check=False, text=True
        )
        assert stranger.stdout.strip() == "b''", stranger
        assert server.connections == []
        assert relay.losses == []
        assert any("tried to use the session's database relay" in words for _, words in relay.lines)
        with log_in(relay):
            pass


def test_two_relays_have_addresses_of_their_own() -> None:
    with Relayed(at(1)) as one, Relayed(at(1)) as other:
        assert one.host != other.host
