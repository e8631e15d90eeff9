"""Reads every setting from the environment and validates it before anything starts.

Unsafe settings are refused with a remedy. Secrets are never printed. docs/configuration.md is generated from here.
"""

import enum
import os
from datetime import timedelta
from typing import Any, Self, cast

from pydantic import SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.domain.addresses import is_anywhere, is_loopback
from service.domain.lease import LeaseTimes
from service.domain.media import MediaKind, MediaLimits
from service.domain.proxies import hide_password
from service.node.config_types import (
    Address,
    Duration,
    Function,
    NodeId,
    OptionalAddress,
    PostgresUrl,
    ProxyUrl,
    RedisUrl,
    Token,
    duration_text,
    host_name,
    setting,
)


class Environment(enum.Enum):
    """The kind of deployment."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"
    TEST = "test"


class LogLevel(enum.Enum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_MIB = 1024 * 1024
_FILE: dict[str, Any] = {"ge": 1, "le": 2047}
"""Limits of a size of a file in MiB."""
_MIN_SECRET_CHARACTERS = 16
_MIN_EVENT_RETENTION = timedelta(hours=1)
_MIN_MESSAGE_RETENTION = timedelta(days=1)


class ConfigurationError(Exception):
    """The settings are invalid; `lines` names each problem and its remedy, without secrets."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Settings(BaseSettings):
    """Holds the settings of one node. Create it with `load`."""

    model_config = SettingsConfigDict(
        frozen=True, env_ignore_empty=True, extra="ignore", hide_input_in_errors=True, populate_by_name=True
    )

    environment: Environment = setting(
        "ZAP_ENVIRONMENT",
        Environment.PRODUCTION,
        "`production`, `development` or `test`. The latter two start an embedded Postgres and Valkey where no URL is"
        " given, and log for people.",
    )
    database_url: PostgresUrl = setting(
        "DATABASE_URL", None, "Postgres: the truth. Required in production.", shown="an embedded server"
    )
    redis_url: RedisUrl = setting(
        "REDIS_URL", None, "Redis: live events and wake-ups. Required in production.", shown="an embedded server"
    )
    whatsapp_database_url: PostgresUrl = setting(
        "ZAP_WHATSAPP_DATABASE_URL",
        None,
        "Where session processes reach the same database: here PgBouncer goes. Its user owns whatsmeow's tables, on"
        " which the user of `DATABASE_URL` needs SELECT, UPDATE (to lock rows) and DELETE. It needs no right on the"
        " schema `zap`.",
        shown="`DATABASE_URL`",
    )
    listen: Address = setting(
        "ZAP_LISTEN", "127.0.0.1:50051", "Address of the gRPC server. Beyond loopback it needs `ZAP_AUTH_TOKEN`."
    )
    http_listen: Address = setting(
        "ZAP_HTTP_LISTEN", "127.0.0.1:9464", "Address of `/metrics`, `/livez` and `/readyz`. They hold no secrets."
    )
    auth_token: Token = setting(
        "ZAP_AUTH_TOKEN",
        SecretStr(""),
        "What callers must send as `authorization: Bearer …`.",
        shown="none: every caller is admitted",
    )
    insecure: bool = setting(
        "ZAP_INSECURE",
        False,  # noqa: FBT003 - the default of a setting, like the others
        "`1` allows to listen beyond loopback without a token or a node secret: something in front must authenticate.",
    )
    node_id: NodeId = setting(
        "ZAP_NODE_ID",
        host_name(),
        "The node's label for people. Ownership does not rely on it.",
        shown="the host's name",
    )
    node_listen: Address = setting(
        "ZAP_NODE_LISTEN",
        "127.0.0.1:0",
        "Address on which other nodes reach this one, to pass on calls that need a session's owner; port 0 is any free"
        " one.",
    )
    node_advertise: OptionalAddress = setting(
        "ZAP_NODE_ADVERTISE",
        "",
        "The address that other nodes use for it. Port 0 is the one that it listens on, for where ports are not"
        " translated.",
        shown="`ZAP_NODE_LISTEN`; where that is 0.0.0.0 or [::], the address from which this node reaches Postgres,"
        " looked up again and again",
    )
    node_secret: Token = setting(
        "ZAP_NODE_SECRET",
        SecretStr(""),
        "The same on all nodes, which prove it to each other (TLS with certificates on both sides, made from it). A"
        " node with another one than living nodes refuses to start.",
        shown="`ZAP_AUTH_TOKEN`; without that, any process of this machine is taken for a node",
    )
    lease_ttl: float = setting(
        "ZAP_LEASE_TTL",
        10.0,
        "How long a session stays with a node that does not renew its lease. Shorter is a faster failover and less"
        " tolerance of a slow database.",
        unit="s",
        gt=0,
        le=300,
        allow_inf_nan=False,
    )
    max_sessions: int = setting(
        "ZAP_MAX_SESSIONS",
        200,
        "How many sessions this node runs at the most; each takes about 25 MiB.",
        unit="sessions",
        ge=1,
        le=10_000,
    )
    connects_per_second: float = setting(
        "ZAP_CONNECTS_PER_SECOND",
        10.0,
        "How fast a node starts session processes, at most a second's worth at once: many logins at once look like"
        " abuse.",
        unit="sessions/s",
        gt=0,
        le=1000,
        allow_inf_nan=False,
    )
    send_rate: float = setting(
        "ZAP_SEND_RATE",
        0.0,
        "How many messages a session sends in a second; the others wait in its queue. 0: as fast as WhatsApp takes"
        " them. WhatsApp restricts accounts that write fast, or to many people who never wrote to them.",
        unit="messages/s",
        ge=0,
        le=1000,
        allow_inf_nan=False,
    )
    send_burst: int = setting(
        "ZAP_SEND_BURST",
        20,
        "How many messages a session may send at once after a rest, with a `ZAP_SEND_RATE`.",
        unit="messages",
        ge=1,
        le=10_000,
    )
    rebalance: bool = setting(
        "ZAP_REBALANCE",
        True,  # noqa: FBT003 - the default of a setting, like the others
        "`0`: connected sessions stay on this node until it stops, although others own fewer. Otherwise it hands over"
        " those that have been idle for longest, each of which is away for less than a second and may be connected from"
        " another address then.",
    )
    shutdown_grace: float = setting(
        "ZAP_SHUTDOWN_GRACE",
        30.0,
        "How long sessions have to end when the node is asked to stop; calls get 5 s more. The orchestrator must give"
        " at least 25 s more.",
        unit="s",
        ge=0,
        le=600,
        allow_inf_nan=False,
    )
    watch_patience: float = setting(
        "ZAP_WATCH_PATIENCE",
        60.0,
        "A consumer of `EventService.Watch` that is late by more than this, and has more events before it than this"
        " long ago, gets CONSUMER_TOO_SLOW.",
        unit="s",
        gt=0,
        le=86_400,
        allow_inf_nan=False,
    )
    watch_streams: int = setting(
        "ZAP_WATCH_STREAMS",
        1000,
        "Streams of `EventService.Watch` that this node serves at once; further calls are refused, to try another"
        " node. A stream whose consumer takes nothing costs up to 0.5 MiB, and ends after ten times"
        " `ZAP_WATCH_PATIENCE`.",
        unit="streams",
        ge=1,
        le=100_000,
    )
    event_retention: Duration = setting(
        "ZAP_EVENT_RETENTION",
        timedelta(days=7),
        "How long events are kept in the log after they were appended, and so how long a consumer may be away:"
        " seconds, or as in `90m`, `12h`, `7d`. At least `1h`.",
    )
    message_retention: Duration = setting(
        "ZAP_MESSAGE_RETENTION",
        timedelta(days=90),
        "How long messages that callers sent are kept (longer if their outcome is unknown), and so how long the"
        " same `request_id` gives the same message and sends none. At least `1d`.",
    )
    number_checks_per_hour: int = setting(
        "ZAP_NUMBER_CHECKS_PER_HOUR",
        1000,
        "Phone numbers that a session may ask WhatsApp about in an hour (`ContactService.CheckNumbers`), a tenth of"
        " them at once: accounts that ask for many are banned. Answers are kept for an hour and count once.",
        unit="numbers",
        ge=1,
        le=1_000_000,
    )
    max_image: int = setting("ZAP_MAX_IMAGE", 16, "Largest image to upload.", unit="MiB", **_FILE)
    max_video: int = setting("ZAP_MAX_VIDEO", 64, "Largest video to upload.", unit="MiB", **_FILE)
    max_audio: int = setting("ZAP_MAX_AUDIO", 16, "Largest audio file or voice note to upload.", unit="MiB", **_FILE)
    max_document: int = setting(
        "ZAP_MAX_DOCUMENT",
        64,
        "Largest document to upload. WhatsApp takes 2 GiB, but an upload needs three times its size in memory.",
        unit="MiB",
        **_FILE,
    )
    max_sticker: int = setting("ZAP_MAX_STICKER", 100, "Largest sticker to upload.", unit="KiB", ge=1, le=10_240)
    max_animated_sticker: int = setting(
        "ZAP_MAX_ANIMATED_STICKER", 500, "Largest animated sticker to upload.", unit="KiB", ge=1, le=10_240
    )
    upload_memory: int = setting(
        "ZAP_UPLOAD_MEMORY",
        128,
        "Files that this node uploads at the same time may have so many bytes together; further uploads are refused, to"
        " try again. The memory used is three times as much, in session processes for some minutes.",
        unit="MiB",
        ge=1,
        le=65_536,
    )
    max_download: int = setting("ZAP_MAX_DOWNLOAD", 2047, "Largest file to download.", unit="MiB", **_FILE)
    downloads: int = setting(
        "ZAP_DOWNLOADS",
        32,
        "Downloads of this node at the same time; further ones are refused, to try again. Each takes up to 1 MiB of"
        " memory, and together they take a CPU.",
        unit="downloads",
        ge=1,
        le=1_000,
    )
    media_timeout: float = setting(
        "ZAP_MEDIA_TIMEOUT",
        300.0,
        "Longest time of one upload or download.",
        unit="s",
        ge=5,
        le=3600,
        allow_inf_nan=False,
    )
    whatsapp_proxy_url: ProxyUrl = setting(
        "ZAP_WHATSAPP_PROXY_URL", SecretStr(""), "Proxy of sessions that name none.", shown="none"
    )
    data_dir: str = setting(
        "ZAP_DATA_DIR", ".data", "Folder of the embedded servers. It holds credentials: keep it, keep it private."
    )
    worker_preload: Function = setting(
        "ZAP_WORKER_PRELOAD",
        "",
        "`module:function` that session processes call before their first connect. In `development` and `test` only.",
        shown="none",
    )
    log_level: LogLevel = setting(
        "ZAP_LOG_LEVEL", LogLevel.INFO, "`debug`, `info`, `warning` or `error`. Calls that only read are `debug`."
    )

    @property
    def is_production(self) -> bool:
        """Return whether embedded servers and preloads are forbidden."""
        return self.environment is Environment.PRODUCTION

    @property
    def lease_times(self) -> LeaseTimes:
        """Return the times derived from ZAP_LEASE_TTL."""
        return LeaseTimes(self.lease_ttl)

    @property
    def media_limits(self) -> MediaLimits:
        """Return the limits of uploads and downloads, in bytes."""
        largest = {
            MediaKind.IMAGE: self.max_image * _MIB,
            MediaKind.VIDEO: self.max_video * _MIB,
            MediaKind.AUDIO: self.max_audio * _MIB,
            MediaKind.DOCUMENT: self.max_document * _MIB,
            MediaKind.STICKER: max(self.max_sticker, self.max_animated_sticker) * 1024,
        }
        return MediaLimits(
            largest,
            largest_still_sticker=self.max_sticker * 1024,
            largest_download=self.max_download * _MIB,
            upload_memory=self.upload_memory * _MIB,
            downloads=self.downloads,
            timeout=self.media_timeout,
        )

    @model_validator(mode="after")
    def _validate(self) -> Self:
        problems = [*self._missing(), *self._unauthenticated_listeners(), *self._conflicts()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _missing(self) -> list[str]:
        if not self.is_production:
            return []
        remedy = "in production it is required; for an embedded server on a laptop set ZAP_ENVIRONMENT=development"
        required = {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}
        return [f"{name}: {remedy}" for name, value in required.items() if value is None]

    def _unauthenticated_listeners(self) -> list[str]:
        if self.insecure:
            return []
        listeners = (
            ("ZAP_LISTEN", self.listen, "ZAP_AUTH_TOKEN", self.auth_token),
            ("ZAP_NODE_LISTEN", self.node_listen, "ZAP_NODE_SECRET", self.node_secret),
        )
        return [
            f"{name}: {address} can be reached from other machines and {secret} is not set: set it, or ZAP_INSECURE=1"
            " if something in front of it authenticates"
            for name, address, secret, value in listeners
            if not is_loopback(address) and not value.get_secret_value()
        ]

    def _conflicts(self) -> list[str]:
        problems = []
        if 0 < len(self.node_secret.get_secret_value()) < _MIN_SECRET_CHARACTERS:
            problems.append(
                f"ZAP_NODE_SECRET: needs at least {_MIN_SECRET_CHARACTERS} characters, since a recorded handshake helps"
                " to guess it; take 32 random ones or more"
            )
        if self.is_production and self.worker_preload:
            problems.append(
                "ZAP_WORKER_PRELOAD: runs foreign code in session processes, so it needs"
                " ZAP_ENVIRONMENT=development or test; unset it"
            )
        problems += self._too_short()
        if self.node_advertise and is_anywhere(self.node_advertise):
            problems.append(
                f"ZAP_NODE_ADVERTISE: other nodes cannot call {self.node_advertise}: set it to an address of this node"
                " that they reach, or unset it"
            )
        try:
            self.lease_times.check()
        except ValueError as error:
            problems.append(f"ZAP_LEASE_TTL: {error}; set a longer one")
        return problems

    def _too_short(self) -> list[str]:
        """Return a line for each retention below its minimum; tests may use shorter ones."""
        if self.environment is Environment.TEST:
            return []
        minimums = (
            ("ZAP_EVENT_RETENTION", self.event_retention, _MIN_EVENT_RETENTION, "consumers that were away"),
            ("ZAP_MESSAGE_RETENTION", self.message_retention, _MIN_MESSAGE_RETENTION, "callers that try again"),
        )
        return [
            f"{name}: {duration_text(value)} is less than {readers} need; set {duration_text(minimum)} or more"
            for name, value, minimum, readers in minimums
            if value < minimum
        ]


def load() -> Settings:
    """Return the settings in the environment. Raises ConfigurationError with a line for each problem."""
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigurationError(_lines(error)) from None


def unknown_settings(names: list[str] | None = None) -> list[str]:
    """Return ZAP_ variables of the environment that no program reads; usually they are misspelt."""
    known = {_name(field) for field in Settings.model_fields.values()} | _OTHER_VARIABLES
    return sorted(name for name in names or list(os.environ) if name.startswith("ZAP_") and name not in known)


def effective(settings: Settings) -> list[str]:
    """Return NAME=value for every setting, without secrets."""
    return [f"{_name(info)}={_shown(getattr(settings, field))}" for field, info in Settings.model_fields.items()]


def documentation() -> str:
    """Return the Markdown table of docs/configuration.md."""
    rows = ["| setting | default | unit | meaning |", "|---|---|---|---|"]
    for info in Settings.model_fields.values():
        extra = cast("dict[str, str]", info.json_schema_extra)
        default = extra["shown"] or f"`{_shown(info.default)}`"
        rows.append(f"| `{_name(info)}` | {default} | {extra['unit']} | {info.description} |")
    return "\n".join(rows) + "\n"


_OTHER_VARIABLES = {"ZAP_ADDRESS"}
"""Variables that zapctl reads, not the node."""


def _name(info: FieldInfo) -> str:
    return str(info.validation_alias)


def _shown(value: object) -> str:
    match value:
        case SecretStr():
            return _without_password(value.get_secret_value())
        case enum.Enum():
            return str(value.value)
        case bool():
            return str(int(value))
        case float() | None:
            return "" if value is None else f"{value:g}"
        case timedelta():
            return duration_text(value)
        case _:
            return str(value)


def _without_password(secret: str) -> str:
    """Return a URL without its password; hide any other text completely."""
    if "://" not in secret:
        return "***" if secret else ""
    # libpq also accepts a password in the query, so the whole query is dropped.
    return hide_password(secret.partition("?")[0])


def _lines(error: ValidationError) -> list[str]:
    lines: list[str] = []
    for problem in error.errors(include_url=False, include_input=False):
        message = problem["msg"].removeprefix("Value error, ")
        if problem["loc"]:
            lines.append(f"{problem['loc'][0]}: {message[:1].lower()}{message[1:]}")
        else:
            lines += message.split("\n")
    return lines
