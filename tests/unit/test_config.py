"""The settings: what is refused, in which words, and that no secret is ever shown."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from service.node import config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
PRODUCTION = {"DATABASE_URL": "postgres://zap:hunter2@db:5432/zap", "REDIS_URL": "redis://:hunter2@redis:6379/0"}
LAPTOP = {"ZAP_ENVIRONMENT": "development"}
OPEN = {"ZAP_LISTEN": "0.0.0.0:50051"}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ZAP_") or name in PRODUCTION:
            monkeypatch.delenv(name)


def load(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> config.Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return config.load()


@pytest.mark.parametrize(
    "environment",
    [
        PRODUCTION,
        LAPTOP,
        {"ZAP_ENVIRONMENT": "test"},
        LAPTOP | {"ZAP_WORKER_PRELOAD": "simulator.preload:install"},
        PRODUCTION | OPEN | {"ZAP_AUTH_TOKEN": "t"},
        PRODUCTION | OPEN | {"ZAP_INSECURE": "1"},
        PRODUCTION | {"ZAP_LISTEN": "[::1]:1"},
        PRODUCTION | {"ZAP_LISTEN": "localhost:1"},
        PRODUCTION | {"ZAP_NODE_LISTEN": "0.0.0.0:2", "ZAP_NODE_SECRET": "s" * 16, "ZAP_NODE_ADVERTISE": "10.0.0.1:2"},
        PRODUCTION | {"ZAP_NODE_LISTEN": "0.0.0.0:0", "ZAP_NODE_SECRET": "s" * 16, "ZAP_NODE_ADVERTISE": "10.0.0.1:0"},
        PRODUCTION | {"ZAP_NODE_LISTEN": "0.0.0.0:2", "ZAP_NODE_SECRET": "s" * 16},
        PRODUCTION | {"ZAP_LEASE_TTL": "2.5"},
        PRODUCTION | {"ZAP_AUTH_TOKEN": ""},
        PRODUCTION | {"REDIS_URL": "rediss://redis:1"},
        PRODUCTION | {"REDIS_URL": "unix:///run/redis.sock"},
        PRODUCTION | {"DATABASE_URL": "postgresql://u:p@db1:5432,db2:5433/zap"},
        PRODUCTION | {"DATABASE_URL": "postgresql://u:p@%2Frun%2Fpostgresql/zap"},
        PRODUCTION | {"DATABASE_URL": "postgresql:///zap?host=/run/postgresql"},
        PRODUCTION | {"ZAP_WHATSAPP_PROXY_URL": "socks5://u:p@proxy:1080"},
    ],
)
def test_a_safe_combination_starts(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    load(monkeypatch, environment)


@pytest.mark.parametrize(
    ("environment", "setting"),
    [
        ({}, "DATABASE_URL"),
        ({"DATABASE_URL": PRODUCTION["DATABASE_URL"]}, "REDIS_URL"),
        (PRODUCTION | OPEN, "ZAP_LISTEN"),
        (LAPTOP | OPEN, "ZAP_LISTEN"),
        (PRODUCTION | {"ZAP_LISTEN": "[::]:50051"}, "ZAP_LISTEN"),
        (PRODUCTION | {"ZAP_LISTEN": "zap.example:50051"}, "ZAP_LISTEN"),
        (PRODUCTION | {"ZAP_LISTEN": "50051"}, "ZAP_LISTEN"),
        (PRODUCTION | {"ZAP_LISTEN": "127.0.0.1:65536"}, "ZAP_LISTEN"),
        (PRODUCTION | {"ZAP_HTTP_LISTEN": ":9464"}, "ZAP_HTTP_LISTEN"),
        (PRODUCTION | {"ZAP_NODE_LISTEN": "10.0.0.1:2"}, "ZAP_NODE_LISTEN"),
        (PRODUCTION | {"ZAP_NODE_ADVERTISE": "0.0.0.0:2"}, "ZAP_NODE_ADVERTISE"),
        (PRODUCTION | {"ZAP_NODE_SECRET": "s" * 15}, "ZAP_NODE_SECRET"),
        (PRODUCTION | {"ZAP_NODE_ID": "a b"}, "ZAP_NODE_ID"),
        (PRODUCTION | {"ZAP_WORKER_PRELOAD": "a:b"}, "ZAP_WORKER_PRELOAD"),
        (LAPTOP | {"ZAP_WORKER_PRELOAD": "a.b"}, "ZAP_WORKER_PRELOAD"),
        (PRODUCTION | {"ZAP_LEASE_TTL": "1"}, "ZAP_LEASE_TTL"),
        (PRODUCTION | {"ZAP_LEASE_TTL": "nan"}, "ZAP_LEASE_TTL"),
        (PRODUCTION | {"ZAP_LEASE_TTL": "10s"}, "ZAP_LEASE_TTL"),
        (PRODUCTION | {"ZAP_MAX_SESSIONS": "0"}, "ZAP_MAX_SESSIONS"),
        (PRODUCTION | {"ZAP_CONNECTS_PER_SECOND": "0"}, "ZAP_CONNECTS_PER_SECOND"),
        (PRODUCTION | {"ZAP_ENVIRONMENT": "staging"}, "ZAP_ENVIRONMENT"),
        (PRODUCTION | {"ZAP_INSECURE": "perhaps"}, "ZAP_INSECURE"),
        (PRODUCTION | {"ZAP_AUTH_TOKEN": "with hunter2"}, "ZAP_AUTH_TOKEN"),
        (PRODUCTION | {"DATABASE_URL": "mysql://zap:hunter2@db/zap"}, "DATABASE_URL"),
        (PRODUCTION | {"DATABASE_URL": "postgres://zap:hunter2@db:99999/zap"}, "DATABASE_URL"),
        (PRODUCTION | {"DATABASE_URL": "postgres://zap:hunter2@[db/zap"}, "DATABASE_URL"),
        (PRODUCTION | {"REDIS_URL": "redis://:hunter2@redis:port/0"}, "REDIS_URL"),
        (PRODUCTION | {"ZAP_WHATSAPP_DATABASE_URL": "hunter2"}, "ZAP_WHATSAPP_DATABASE_URL"),
        (PRODUCTION | {"REDIS_URL": "http://:hunter2@redis"}, "REDIS_URL"),
        (PRODUCTION | {"ZAP_WHATSAPP_PROXY_URL": "socks4://u:hunter2@p:1"}, "ZAP_WHATSAPP_PROXY_URL"),
        (PRODUCTION | {"ZAP_LOG_LEVEL": "loud"}, "ZAP_LOG_LEVEL"),
        (PRODUCTION | {"ZAP_EVENT_RETENTION": "59m"}, "ZAP_EVENT_RETENTION"),
        (LAPTOP | {"ZAP_EVENT_RETENTION": "5"}, "ZAP_EVENT_RETENTION"),
        (PRODUCTION | {"ZAP_EVENT_RETENTION": "a week"}, "ZAP_EVENT_RETENTION"),
        (PRODUCTION | {"ZAP_EVENT_RETENTION": "-7d"}, "ZAP_EVENT_RETENTION"),
        (PRODUCTION | {"ZAP_EVENT_RETENTION": "999999999d"}, "ZAP_EVENT_RETENTION"),
        (PRODUCTION | {"ZAP_MESSAGE_RETENTION": "23h"}, "ZAP_MESSAGE_RETENTION"),
    ],
)
def test_an_unsafe_or_malformed_setting_is_named_and_its_value_is_not_if_it_is_secret(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], setting: str
) -> None:
    with pytest.raises(config.ConfigurationError) as caught:
        load(monkeypatch, environment)
    assert [line.partition(":")[0] for line in caught.value.lines] == [setting] if environment else True
    assert any(line.startswith(f"{setting}: ") for line in caught.value.lines)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "duration", "shown"),
    [
        ("3600", timedelta(hours=1), "1h"),
        ("90m", timedelta(minutes=90), "90m"),
        ("36h", timedelta(hours=36), "36h"),
        ("7d", timedelta(days=7), "7d"),
        ("2.5s", timedelta(seconds=2.5), "2.5s"),
        ("0", timedelta(0), "0s"),
    ],
)
def test_a_duration_has_a_unit_or_is_in_seconds(
    monkeypatch: pytest.MonkeyPatch, text: str, duration: timedelta, shown: str
) -> None:
    settings = load(monkeypatch, {"ZAP_ENVIRONMENT": "test", "ZAP_EVENT_RETENTION": text})
    assert settings.event_retention == duration
    assert f"ZAP_EVENT_RETENTION={shown}" in config.effective(settings)


def test_every_problem_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(config.ConfigurationError) as caught:
        load(monkeypatch, OPEN | {"ZAP_LEASE_TTL": "1", "ZAP_WORKER_PRELOAD": "a:b"})
    names = {line.partition(":")[0] for line in caught.value.lines}
    assert names == {"DATABASE_URL", "REDIS_URL", "ZAP_LISTEN", "ZAP_LEASE_TTL", "ZAP_WORKER_PRELOAD"}


def test_what_is_in_effect_is_shown_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"ZAP_AUTH_TOKEN": "hunter2", "ZAP_NODE_SECRET": "hunter2-hunter2-hunter2"}
    urls = {
        "ZAP_WHATSAPP_DATABASE_URL": "postgres://db/zap?password=hunter2",
        "ZAP_WHATSAPP_PROXY_URL": "http://u:hunter2@p:1",
    }
    settings = load(monkeypatch, PRODUCTION | secrets | urls)
    shown = config.effective(settings)
    assert "DATABASE_URL=postgres://zap:***@db:5432/zap" in shown
    assert "ZAP_AUTH_TOKEN=***" in shown
    assert "ZAP_WHATSAPP_PROXY_URL=http://u:***@p:1" in shown
    assert "hunter2" not in f"{shown} {settings!r} {settings}"


def test_settings_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, LAPTOP)
    with pytest.raises(ValueError, match="frozen"):
        settings.listen = "0.0.0.0:1"


def test_a_misspelt_setting_is_noticed() -> None:
    assert config.unknown_settings(["ZAP_LEASETTL", "ZAP_LEASE_TTL", "PATH", "ZAP_ADDRESS"]) == ["ZAP_LEASETTL"]


def test_the_documentation_is_current() -> None:
    assert config.documentation() in PAGE.read_text(encoding="utf-8"), "run scripts/document_settings.py"
