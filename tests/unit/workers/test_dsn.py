from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from service.domain.lease import backends_of
from service.workers import dsn
from zap.worker.v1 import frames_pb2

ALWAYS = "sslmode=disable&binary_parameters=yes&application_name=zap%2Fone%2F3"


def address(url: str, **environment: str) -> dsn.Address:
    return dsn.for_session(url, "one", 3, environment)


def servers(url: str, **environment: str) -> list[tuple[str, int]]:
    return [(server.host, server.port) for server in address(url, **environment).database.servers]


def settings(url: str, **environment: str) -> dict[str, str]:
    return {key: value[0] for key, value in parse_qs(urlsplit(address(url, **environment).url).query).items()}


def tls(url: str, **environment: str) -> frames_pb2.Tls:
    return address(url, **environment).database.tls


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://user:pass@host/db", f"postgres://user:pass@/db?{ALWAYS}"),
        ("postgres://user@host:6432/db", f"postgres://user@/db?{ALWAYS}"),
        ("postgresql://host/db", f"postgres:///db?{ALWAYS}"),
        ("postgresql://a:1,b:2/db", f"postgres:///db?{ALWAYS}"),
        # Escaped once and only once, whether or not it was.
        ("postgresql://us%40er:p%2Fa%25s@host/db", f"postgres://us%40er:p%2Fa%25s@/db?{ALWAYS}"),
        ("postgresql://user:p^a|s@host/db", f"postgres://user:p%5Ea%7Cs@/db?{ALWAYS}"),
        ("postgresql://user:a:b@host/db", f"postgres://user:a%3Ab@/db?{ALWAYS}"),
        # The database may be named in the query.
        ("postgresql://host?dbname=my%20db", f"postgres:///my%20db?{ALWAYS}"),
        ("postgresql://host?database=db", f"postgres:///db?{ALWAYS}"),
        ("postgresql://host/my%20db", f"postgres:///my%20db?{ALWAYS}"),
        # So may who asks.
        ("postgresql:///db?user=me&password=pw", f"postgres://me:pw@/db?{ALWAYS}"),
    ],
)
def test_lib_pq_is_told_who_asks_for_which_database_and_no_host(url: str, expected: str) -> None:
    assert address(url).url == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://user:pass@host/db", [("host", 5432)]),
        ("postgresql://user@host:6432/db", [("host", 6432)]),
        ("postgresql://host/db?port=6432", [("host", 6432)]),
        ("postgresql:///db", [("localhost", 5432)]),
        ("postgresql://[::1]:5433/db", [("::1", 5433)]),
        ("postgresql://[::1]/db", [("::1", 5432)]),
        ("postgresql://a:1,b:2/db", [("a", 1), ("b", 2)]),
        ("postgresql://a,b:2/db", [("a", 5432), ("b", 2)]),
        ("postgresql://[::1]:1,b/db", [("::1", 1), ("b", 5432)]),
        ("postgresql:///db?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql:///db?host=a,b&port=7", [("a", 7), ("b", 7)]),
        ("postgresql://user:pw@/db?host=/run/postgresql", [("/run/postgresql", 5432)]),
        ("postgresql:///db?host=/run/postgresql&port=5433", [("/run/postgresql", 5433)]),
        ("postgresql://%2Frun%2Fpostgresql/db", [("/run/postgresql", 5432)]),
        ("postgresql://user:pw@%2Frun%2Fpostgresql:5433/db", [("/run/postgresql", 5433)]),
        ("postgresql:///db?host=@abstract", [("@abstract", 5432)]),
    ],
)
def test_the_relay_is_told_where_the_servers_are(url: str, expected: list[tuple[str, int]]) -> None:
    assert servers(url) == expected


def test_servers_may_be_tried_in_any_order() -> None:
    hosts = [f"host{number}" for number in range(8)]
    orders = {tuple(servers(f"postgresql://{','.join(hosts)}/db?load_balance_hosts=random")) for _ in range(20)}
    assert len(orders) > 1
    assert {frozenset(order) for order in orders} == {frozenset((host, 5432) for host in hosts)}


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
def test_tls_is_the_relay_s(mode: str) -> None:
    assert tls(f"postgresql://host/db?sslmode={mode}").mode == mode
    assert settings(f"postgresql://host/db?sslmode={mode}")["sslmode"] == "disable"


def test_tls_is_preferred_unless_the_address_says_otherwise() -> None:
    assert tls("postgresql://host/db") == frames_pb2.Tls(mode="prefer")
    assert tls("postgresql://host/db?sslrootcert=system").mode == "verify-full"


def test_everything_that_libpq_knows_of_tls_reaches_the_relay() -> None:
    query = (
        "sslmode=require&sslrootcert=/ca.pem&sslcert=/me.pem&sslkey=/me.key&sslpassword=pw&sslcrl=/crl.pem"
        "&sslnegotiation=direct&sslsni=0&ssl_min_protocol_version=TLSv1.2&ssl_max_protocol_version=TLSv1.3"
    )
    assert tls(f"postgresql://host/db?{query}") == frames_pb2.Tls(
        mode="require",
        root_certificate="/ca.pem",
        certificate="/me.pem",
        key="/me.key",
        key_password="pw",
        revoked="/crl.pem",
        direct=True,
        hides_name=True,
        oldest="TLSv1.2",
        newest="TLSv1.3",
    )
    assert set(settings(f"postgresql://host/db?{query}")) == {"sslmode", "binary_parameters", "application_name"}


def test_a_bound_for_connecting_is_the_relay_s() -> None:
    # lib/pq would give up, and tell whatsmeow so.
    assert address("postgresql://host/db?connect_timeout=5").database.connect_timeout == 5
    assert "connect_timeout" not in settings("postgresql://host/db?connect_timeout=5")
    assert address("postgresql://host/db?connect_timeout=-1").database.connect_timeout == 0


@pytest.mark.parametrize(
    ("wish", "passed_on"),
    [("read-write", True), ("primary", True), ("standby", True), ("any", False), ("prefer-standby", False)],
)
def test_which_server_it_shall_be_is_lib_pq_s_to_find_out(wish: str, passed_on: bool) -> None:
    url = f"postgresql://a,b/db?target_session_attrs={wish}"
    assert (settings(url).get("target_session_attrs") == wish) is passed_on
    assert address(url).database.is_choosy is passed_on


@pytest.mark.parametrize(
    "foreign",
    [
        "statement_cache_size=0",
        "command_timeout=5",
        "gsslib=gssapi",
        "search_path=x",
        "application_name=me",
        "load_balance_hosts=random",
    ],
)
def test_what_lib_pq_would_hand_to_the_server_is_left_out(foreign: str) -> None:
    key, _, value = foreign.partition("=")
    assert settings(f"postgresql://host/db?{foreign}").get(key) != value


def test_what_the_address_leaves_out_comes_from_the_environment() -> None:
    environment = {
        "PGHOST": "there",
        "PGPORT": "7",
        "PGUSER": "me",
        "PGPASSWORD": "p/w",
        "PGDATABASE": "mine",
        "PGSSLMODE": "require",
        "PGSSLROOTCERT": "/ca.pem",
        "PGTARGETSESSIONATTRS": "primary",
    }
    assert servers("postgresql://", **environment) == [("there", 7)]
    assert address("postgresql://", **environment).url.startswith("postgres://me:p%2Fw@/mine?target_session")
    assert tls("postgresql://", **environment) == frames_pb2.Tls(mode="require", root_certificate="/ca.pem")
    assert servers("postgresql://here:5/db", **environment) == [("here", 5)]
    assert tls("postgresql://here/db?sslmode=disable", **environment).mode == "disable"


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("postgresql://me@host/db", "first"),
        ("postgresql://me@host:7/db", "se:c\\ret"),
        ("postgresql://me@b:2,c/db", "of c"),
        ("postgresql://me@/db?host=/run/postgresql", "local"),
        ("postgresql://you@host/db", None),
        ("postgresql://me:given@host/db", "given"),
    ],
)
def test_a_password_file_is_read_here(tmp_path: Path, url: str, password: str | None) -> None:
    # lib/pq could not: the only host that it knows is the relay.
    file = tmp_path / "passwords"
    file.write_text(
        "# a comment\n\nhost:5432:db:me:first\nhost:*:db:me:se\\:c\\\\ret\nc:5432:*:me:of c\n"
        "localhost:5432:db:me:local\nhalf:a:line\n"
    )
    found = urlsplit(address(url, PGPASSFILE=str(file)).url).password
    assert (unquote(found) if found else None) == password


@pytest.mark.parametrize("session_id", ["a", "a" * 39, "a" * 40, "a" * 63])
def test_an_application_name_ends_in_the_epoch_however_long_the_id(session_id: str) -> None:
    address = dsn.for_session("postgresql://host/db", session_id, 10**18)
    name = parse_qs(urlsplit(address.url).query)["application_name"][0]
    assert name == f"{backends_of(session_id)}{10**18}"
    assert len(name) <= 63
    assert not name.startswith(backends_of(session_id[:-1]) if len(session_id) > 1 else "zap/b"), "another session's"


def test_the_password_survives() -> None:
    password = "p@ss/w:rd?#%&+ ü"
    escaped = "p%40ss%2Fw%3Ard%3F%23%25%26%2B%20%C3%BC"
    result = urlsplit(address(f"postgresql://user:{escaped}@host/db").url)
    assert result.password is not None
    assert unquote(result.password) == password


@pytest.mark.parametrize("url", ["mysql://user:secret@host/db", "", "host=x password=secret"])
def test_what_is_no_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with") as error:
        address(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=secret",
        "sslnegotiation=direct",
        "sslnegotiation=direct&sslmode=prefer",
        "sslrootcert=system&sslmode=require",
        "ssl_min_protocol_version=SSLv3",
        "host=a,b&port=1,2,3",
    ],
)
def test_what_makes_no_sense_is_refused_without_repeating_it(query: str) -> None:
    with pytest.raises(ValueError, match="database's URL") as error:
        address(f"postgresql:///db?password=secret&{query}")
    assert "secret" not in str(error.value)


def test_an_address_does_not_show_its_secrets() -> None:
    shown = repr(address("postgresql://user:secret@host/db?sslpassword=secret"))
    assert "secret" not in shown
