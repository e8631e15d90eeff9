"""Defines the types of settings; each validates its values and explains a wrong one."""

import re
import socket
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from service.domain.addresses import split_address
from service.domain.proxies import check_proxy


def _address(value: str) -> str:
    split_address(value)
    return value


def _optional_address(value: str) -> str:
    return _address(value) if value else value


def _proxy(value: SecretStr) -> SecretStr:
    if value.get_secret_value():
        check_proxy(value.get_secret_value())
    return value


def _url_of(*schemes: str) -> AfterValidator:
    pattern = re.compile(rf"({'|'.join(schemes)})://[^\s\x00]+")

    def check(value: SecretStr | None) -> SecretStr | None:
        if value is not None and not pattern.fullmatch(value.get_secret_value()):
            raise ValueError(f"must be a URL that begins with {' or '.join(f'{s}://' for s in schemes)}")
        if value is not None and not _names_hosts(value.get_secret_value()):
            raise ValueError("must be a URL with valid hosts and ports, as in scheme://user:password@host:port/name")
        return value

    return AfterValidator(check)


def _names_hosts(url: str) -> bool:
    """Return whether every host and port is valid; libpq takes several, separated by commas."""
    try:
        hosts = urlsplit(url).netloc.rpartition("@")[2].split(",")
        return all(urlsplit(f"//{host}").port != 0 for host in hosts)
    except ValueError:
        return False


def _token(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]*", value.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces: it travels in a header")
    return value


def _preload(value: str) -> str:
    if value and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise ValueError("must have the form module:function")
    return value


def _node_id(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,63}", value):
        raise ValueError("must be 1 to 63 letters, digits, dots, underscores or hyphens")
    return value


def _duration(value: object) -> object:
    match = re.fullmatch(r"(\d{1,7}(?:\.\d{1,6})?)([smhd]?)", value) if isinstance(value, str) else None
    if match is not None and float(match[1]) * _UNIT_SECONDS[match[2]] <= _MAX_DURATION_S:
        return timedelta(seconds=float(match[1]) * _UNIT_SECONDS[match[2]])
    if isinstance(value, timedelta):
        return value
    raise ValueError(
        "must be a number of seconds, or a number with s, m, h or d behind it, as in 90m or 7d, and no more than 3650d"
    )


def duration_text(value: timedelta) -> str:
    """Return a duration in the syntax of a setting, as a whole number of the largest unit that allows it."""
    seconds = value.total_seconds()
    unit = next((unit for unit in "dhm" if seconds and seconds % _UNIT_SECONDS[unit] == 0), "s")
    return f"{seconds / _UNIT_SECONDS[unit]:g}{unit}"


def host_name() -> str:
    """Return the host's name, reduced to what a node's name may contain."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:63] or "node"


def setting(
    name: str, default: Any, description: str, *, unit: str = "", shown: str | None = None, **limits: Any
) -> Any:
    """Return a field of Settings; the documentation has `shown` for a default that depends on something."""
    extra: dict[str, Any] = {"unit": unit, "shown": shown}
    return Field(default, validation_alias=name, description=description, json_schema_extra=extra, **limits)


_MAX_DURATION_S = 3650 * 86400
_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

PostgresUrl = Annotated[SecretStr | None, _url_of("postgres", "postgresql")]
RedisUrl = Annotated[SecretStr | None, _url_of("redis", "rediss", "unix")]
Token = Annotated[SecretStr, AfterValidator(_token)]
Address = Annotated[str, AfterValidator(_address)]
OptionalAddress = Annotated[str, AfterValidator(_optional_address)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy)]
Function = Annotated[str, AfterValidator(_preload)]
NodeId = Annotated[str, AfterValidator(_node_id)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
