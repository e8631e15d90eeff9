"""The database's address, from the form that asyncpg takes to the one that lib/pq takes (whatsmeow's driver, in Go).

They differ where it hurts: lib/pq insists on TLS unless told otherwise, sends what it does not know to the server as a
setting (PgBouncer then refuses the connection), and needs `binary_parameters` to live behind PgBouncer.
"""

from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

#: What lib/pq 1.12 knows by the same name and with the same meaning; of asyncpg's own the rest is left out.
_KNOWN = frozenset(
    {
        *("host", "port", "user", "password", "passfile", "connect_timeout", "options", "client_encoding"),
        *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslsni", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version"),
        *("target_session_attrs", "load_balance_hosts", "krbsrvname"),
    }
)

_LONGEST_NAME = 63


def for_session(url: str, session_id: str, epoch: int) -> str:
    """The address for one start of one session; its backends can be told by their application_name."""
    return with_application_name(url, f"zap/{session_id}/{epoch}")


def with_application_name(url: str, name: str) -> str:
    """The address in lib/pq's form. Raises ValueError, without the address in its words, if it is not one."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ValueError("the database's URL must begin with postgresql:// or postgres://")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    hosts, socket_folder = _hosts(parts.netloc.rpartition("@")[2])
    settings = {key: value for key, value in given.items() if key in _KNOWN} | _socket(socket_folder)
    settings.setdefault("sslmode", "prefer")
    settings |= {"binary_parameters": "yes", "application_name": name[:_LONGEST_NAME]}
    database = parts.path.lstrip("/") or quote(given.get("dbname") or given.get("database", ""), safe="")
    return f"postgres://{_credentials(parts.netloc)}{hosts}/{database}?{urlencode(settings, quote_via=quote)}"


def _credentials(netloc: str) -> str:
    """`user:password@`, escaped afresh: what asyncpg forgives in a password, Go's URL parser does not."""
    userinfo, at, _ = netloc.rpartition("@")
    if not at:
        return ""
    user, colon, password = userinfo.partition(":")
    return quote(unquote(user), safe="") + colon + quote(unquote(password), safe="") + "@"


def _hosts(hosts: str) -> tuple[str, str]:
    """The hosts to leave in the URL, and the folder of a Unix socket, which a URL of Go's cannot hold."""
    decoded = unquote(hosts)
    return ("", decoded) if decoded.startswith("/") else (hosts, "")


def _socket(address: str) -> dict[str, str]:
    folder, colon, port = address.rpartition(":")
    if not address:
        return {}
    return {"host": folder, "port": port} if colon else {"host": address}
