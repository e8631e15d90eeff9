"""The database's address, from the form that asyncpg takes to what a session process needs.

lib/pq (whatsmeow's driver, in Go) is told who asks for which database, in its own form: it sends what it does not know
to the server as a setting, which PgBouncer refuses, and needs `binary_parameters` to live behind PgBouncer. Where the
servers are and how they are reached is for the relay in the session process (docs/supervision.md).

What the address leaves out comes from libpq's variables of the environment, as asyncpg has it.
"""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from service.domain.lease import backends_of
from service.workers import pgpass
from zap.worker.v1 import frames_pb2

#: What lib/pq 1.12 knows by the same name and with the same meaning, and what is not the relay's.
_KNOWN = frozenset({"options", "client_encoding", "krbsrvname"})

_LONGEST_NAME = 63
_DEFAULT_PORT = "5432"

_VARIABLES = {
    "PGHOST": "host",
    "PGPORT": "port",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGPASSFILE": "passfile",
    "PGDATABASE": "dbname",
    "PGSSLMODE": "sslmode",
    "PGSSLCERT": "sslcert",
    "PGSSLKEY": "sslkey",
    "PGSSLROOTCERT": "sslrootcert",
    "PGSSLCRL": "sslcrl",
    "PGSSLNEGOTIATION": "sslnegotiation",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
    "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
}

_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})
_ENCRYPTED = frozenset({"require", "verify-ca", "verify-full"})
_VERSIONS = frozenset({"", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"})


@dataclass(frozen=True)
class Address:
    """The two halves."""

    url: str = field(repr=False)
    """Of lib/pq; it names no host."""
    database: frames_pb2.Database = field(repr=False)
    """Of the relay."""


def for_session(url: str, session_id: str, epoch: int, environment: Mapping[str, str] = os.environ) -> Address:
    """The address for one start of one session; its backends can be told by their application_name."""
    return with_application_name(url, f"{backends_of(session_id)}{epoch}", environment)


def with_application_name(url: str, name: str, environment: Mapping[str, str] = os.environ) -> Address:
    """Raises ValueError, without the address in its words, if it is not one."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ValueError("the database's URL must begin with postgresql:// or postgres://")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    named = {
        "user": unquote(user),
        "password": unquote(password),
        "dbname": unquote(parts.path.lstrip("/")),
    }
    given = {setting: environment.get(variable, "") for variable, setting in _VARIABLES.items()}
    given |= dict(parse_qsl(parts.query, keep_blank_values=True))
    given |= {setting: value for setting, value in named.items() if value}
    servers = _servers(unquote(hosts), given)
    database = frames_pb2.Database(
        servers=servers,
        # lib/pq would first ask them all for a standby; it has no use for one, since it writes.
        is_choosy=_attributes(given) != "",
        connect_timeout=max(0, int(given.get("connect_timeout") or 0)),
        tls=_tls(given),
    )
    return Address(_of_lib_pq(given, servers, name), database)


def hosts(url: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The servers that an address names: names, addresses, or folders of Unix sockets."""
    return [server.host for server in with_application_name(url, "", environment).database.servers]


def _of_lib_pq(given: Mapping[str, str], servers: list[frames_pb2.Server], name: str) -> str:
    database = given.get("dbname") or given.get("database", "")
    user = given.get("user", "")
    password = given.get("password") or pgpass.password(given.get("passfile", ""), servers, database, user)
    # Escaped afresh: what asyncpg forgives in a password, Go's URL parser does not.
    credentials = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    settings = {key: value for key, value in given.items() if key in _KNOWN and value}
    if attributes := _attributes(given):
        settings["target_session_attrs"] = attributes
    settings |= {"sslmode": "disable", "binary_parameters": "yes", "application_name": name[:_LONGEST_NAME]}
    at = f"{credentials}@" if credentials else ""
    return f"postgres://{at}/{quote(database, safe='')}?{urlencode(settings, quote_via=quote)}"


def _attributes(given: Mapping[str, str]) -> str:
    """Which of several servers lib/pq is to take."""
    attributes = given.get("target_session_attrs", "")
    # A standby is of no use to whatsmeow, and "rather a standby" means going round twice.
    return "" if attributes in {"any", "prefer-standby"} else attributes


def _servers(hosts: str, given: Mapping[str, str]) -> list[frames_pb2.Server]:
    """In the order in which they are to be tried."""
    default = given.get("port") or _DEFAULT_PORT
    ports = default.split(",")
    pairs = [_host_and_port(text) for text in (hosts or given.get("host") or "localhost").split(",")]
    if len(ports) not in {1, len(pairs)}:
        raise ValueError("the database's URL has more or fewer ports than hosts")
    ports *= len(pairs) if len(ports) == 1 else 1
    servers = [
        frames_pb2.Server(host=host or "localhost", port=int(port or fallback or _DEFAULT_PORT))
        for (host, port), fallback in zip(pairs, ports, strict=True)
    ]
    if given.get("load_balance_hosts") == "random":
        random.shuffle(servers)
    return servers


def _host_and_port(text: str) -> tuple[str, str]:
    """`host`, `host:port`, `[address]:port`, or a folder."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = text.partition(":")
    return host, port


def _tls(given: Mapping[str, str]) -> frames_pb2.Tls:
    root = given.get("sslrootcert", "")
    mode = given.get("sslmode") or ("verify-full" if root == "system" else "prefer")
    direct = given.get("sslnegotiation") == "direct"
    oldest, newest = given.get("ssl_min_protocol_version", ""), given.get("ssl_max_protocol_version", "")
    if mode not in _MODES:
        raise ValueError("the database's URL has an sslmode that does not exist")
    if direct and mode not in _ENCRYPTED:
        raise ValueError("sslnegotiation=direct in the database's URL needs sslmode=require, verify-ca or verify-full")
    if root == "system" and mode != "verify-full":
        raise ValueError("sslrootcert=system in the database's URL needs sslmode=verify-full")
    if not {oldest, newest} <= _VERSIONS:
        raise ValueError("the database's URL names a version of TLS that does not exist")
    return frames_pb2.Tls(
        mode=mode,
        root_certificate=root,
        certificate=given.get("sslcert", ""),
        key=given.get("sslkey", ""),
        key_password=given.get("sslpassword", ""),
        revoked=given.get("sslcrl", ""),
        direct=direct,
        hides_name=given.get("sslsni", "1") == "0",
        oldest=oldest,
        newest=newest,
    )
