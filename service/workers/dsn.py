"""Translates the database URL from asyncpg's form to what a session process needs.

The relay in the session process gets the servers and the TLS settings (docs/supervision.md). lib/pq, whatsmeow's driver
in Go, gets a URL with the user and the database. The URL has only settings that lib/pq knows, because lib/pq sends
others to the server, where PgBouncer refuses them. It sets `binary_parameters`, which lib/pq needs behind PgBouncer.

As in asyncpg, settings that the URL omits come from libpq's environment variables.
"""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from service.domain.lease import backends_of
from service.workers import pgpass
from zap.worker.v1 import frames_pb2

#: Settings that lib/pq 1.12 knows by the same name and with the same meaning, without those of the relay.
_LIB_PQ_SETTINGS = frozenset({"options", "client_encoding", "krbsrvname"})

_MAX_NAME_BYTES = 63
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

_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})
_REQUIRED_SSL_MODES = frozenset({"require", "verify-ca", "verify-full"})
_TLS_VERSIONS = frozenset({"", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"})


@dataclass(frozen=True)
class Address:
    """The database address of a session process, for lib/pq and for the relay."""

    url: str = field(repr=False)
    """The URL for lib/pq, without a host."""
    database: frames_pb2.Database = field(repr=False)
    """The servers and TLS settings for the relay."""


def for_session(url: str, session_id: str, epoch: int, environment: Mapping[str, str] = os.environ) -> Address:
    """Return the address for one epoch of a session, which the application_name of its backends identifies."""
    return with_application_name(url, f"{backends_of(session_id)}{epoch}", environment)


def with_application_name(url: str, name: str, environment: Mapping[str, str] = os.environ) -> Address:
    """Translate a URL. Raise ValueError, without the URL in its message, if it is invalid."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ValueError("the database's URL must begin with postgresql:// or postgres://")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    from_path = {
        "user": unquote(user),
        "password": unquote(password),
        "dbname": unquote(parts.path.lstrip("/")),
    }
    given = {setting: environment.get(variable, "") for variable, setting in _VARIABLES.items()}
    given |= dict(parse_qsl(parts.query, keep_blank_values=True))
    given |= {setting: value for setting, value in from_path.items() if value}
    servers = _servers(unquote(hosts), given)
    database = frames_pb2.Database(
        servers=servers,
        # prefer-standby does not count: lib/pq would first try all servers for a standby, and whatsmeow writes.
        is_choosy=_session_attributes(given) != "",
        connect_timeout=max(0, int(given.get("connect_timeout") or 0)),
        tls=_tls(given),
    )
    return Address(_lib_pq_url(given, servers, name), database)


def hosts(url: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the hosts of a URL: names, addresses or folders of Unix sockets."""
    return [server.host for server in with_application_name(url, "", environment).database.servers]


def _lib_pq_url(given: Mapping[str, str], servers: list[frames_pb2.Server], name: str) -> str:
    database = given.get("dbname") or given.get("database", "")
    user = given.get("user", "")
    password = given.get("password") or pgpass.password(given.get("passfile", ""), servers, database, user)
    # Escaped again: Go's URL parser rejects unescaped characters that asyncpg accepts.
    credentials = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    settings = {key: value for key, value in given.items() if key in _LIB_PQ_SETTINGS and value}
    if attributes := _session_attributes(given):
        settings["target_session_attrs"] = attributes
    settings |= {"sslmode": "disable", "binary_parameters": "yes", "application_name": name[:_MAX_NAME_BYTES]}
    userinfo = f"{credentials}@" if credentials else ""
    return f"postgres://{userinfo}/{quote(database, safe='')}?{urlencode(settings, quote_via=quote)}"


def _session_attributes(given: Mapping[str, str]) -> str:
    """Return the target_session_attrs for lib/pq; empty for any server."""
    attributes = given.get("target_session_attrs", "")
    # whatsmeow writes, so it does not need a standby, and prefer-standby would try the servers twice.
    return "" if attributes in {"any", "prefer-standby"} else attributes


def _servers(hosts: str, given: Mapping[str, str]) -> list[frames_pb2.Server]:
    """Return the servers in the order in which to try them."""
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
    """Split `host`, `host:port`, `[address]:port` or a folder into host and port."""
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
    if mode not in _SSL_MODES:
        raise ValueError("the database's URL has an sslmode that does not exist")
    if direct and mode not in _REQUIRED_SSL_MODES:
        raise ValueError("sslnegotiation=direct in the database's URL needs sslmode=require, verify-ca or verify-full")
    if root == "system" and mode != "verify-full":
        raise ValueError("sslrootcert=system in the database's URL needs sslmode=verify-full")
    if not {oldest, newest} <= _TLS_VERSIONS:
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
