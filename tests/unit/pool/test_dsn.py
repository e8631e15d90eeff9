from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from service.pool import dsn

ALWAYS = "sslmode=prefer&binary_parameters=yes&application_name=zap%2Fone%2F3"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://user:pass@host/db", f"postgres://user:pass@host/db?{ALWAYS}"),
        ("postgres://user@host:6432/db", f"postgres://user@host:6432/db?{ALWAYS}"),
        ("postgresql://host/db", f"postgres://host/db?{ALWAYS}"),
        ("postgresql:///db", f"postgres:///db?{ALWAYS}"),
        ("postgresql://[::1]:5433/db", f"postgres://[::1]:5433/db?{ALWAYS}"),
        ("postgresql://a:1,b:2/db", f"postgres://a:1,b:2/db?{ALWAYS}"),
        # Escaped once and only once, whether or not it was.
        ("postgresql://us%40er:p%2Fa%25s@host/db", f"postgres://us%40er:p%2Fa%25s@host/db?{ALWAYS}"),
        ("postgresql://user:p^a|s@host/db", f"postgres://user:p%5Ea%7Cs@host/db?{ALWAYS}"),
        ("postgresql://user:a:b@host/db", f"postgres://user:a%3Ab@host/db?{ALWAYS}"),
        # The database may be named in the query.
        ("postgresql://host?dbname=my%20db", f"postgres://host/my%20db?{ALWAYS}"),
        ("postgresql://host?database=db", f"postgres://host/db?{ALWAYS}"),
    ],
)
def test_an_address_is_put_into_the_form_of_lib_pq(url: str, expected: str) -> None:
    assert dsn.for_session(url, "one", 3) == expected


def settings(url: str) -> dict[str, str]:
    return {key: value[0] for key, value in parse_qs(urlsplit(dsn.for_session(url, "one", 3)).query).items()}


@pytest.mark.parametrize("mode", ["disable", "require", "verify-full"])
def test_a_mode_of_tls_that_is_given_stays(mode: str) -> None:
    assert settings(f"postgresql://host/db?sslmode={mode}")["sslmode"] == mode


def test_certificates_and_bounds_stay() -> None:
    given = settings("postgresql://host/db?sslrootcert=/ca.pem&connect_timeout=5&target_session_attrs=read-write")
    assert given["sslrootcert"] == "/ca.pem"
    assert (given["connect_timeout"], given["target_session_attrs"]) == ("5", "read-write")


@pytest.mark.parametrize(
    "foreign",
    [
        "statement_cache_size=0",
        "command_timeout=5",
        "sslcrl=x",
        "gsslib=gssapi",
        "search_path=x",
        "application_name=me",
    ],
)
def test_what_lib_pq_would_hand_to_the_server_is_left_out(foreign: str) -> None:
    key, _, value = foreign.partition("=")
    assert settings(f"postgresql://host/db?{foreign}").get(key) != value


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://user:pw@/db?host=/run/postgresql", "/run/postgresql", None),
        ("postgresql:///db?host=/run/postgresql&port=5433", "/run/postgresql", "5433"),
        ("postgresql://%2Frun%2Fpostgresql/db", "/run/postgresql", None),
        ("postgresql://user:pw@%2Frun%2Fpostgresql:5433/db", "/run/postgresql", "5433"),
    ],
)
def test_a_unix_socket_goes_into_the_query(url: str, host: str, port: str | None) -> None:
    given = settings(url)
    assert (given["host"], given.get("port")) == (host, port)
    assert not urlsplit(dsn.for_session(url, "one", 3)).hostname


def test_the_application_name_is_as_long_as_postgres_keeps_it() -> None:
    name = parse_qs(urlsplit(dsn.for_session("postgresql://host/db", "a" * 63, 12)).query)["application_name"][0]
    assert name == ("zap/" + "a" * 63)[:63]


def test_the_password_survives() -> None:
    password = "p@ss/w:rd?#%&+ ü"
    escaped = "p%40ss%2Fw%3Ard%3F%23%25%26%2B%20%C3%BC"
    result = urlsplit(dsn.for_session(f"postgresql://user:{escaped}@host/db", "one", 1))
    assert result.password is not None
    assert unquote(result.password) == password


@pytest.mark.parametrize("url", ["mysql://user:secret@host/db", "", "host=x password=secret"])
def test_what_is_no_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with") as error:
        dsn.for_session(url, "one", 1)
    assert "secret" not in str(error.value)
