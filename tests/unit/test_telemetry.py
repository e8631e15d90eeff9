"""What operators see: logs without secrets, and pages that tell the truth."""

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import aiohttp
import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter

from service.api.http.pages import CannotServePages, HealthAndMetricsServer
from service.domain.masking import masked
from service.telemetry.logging import configure_logging
from service.telemetry.redaction import loggable
from tests.fakes.core import code
from zap.v1 import message_pb2, session_pb2

PHONE = "4917612345678"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where logs go, in the form of production."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure_logging(level="info", readable=False, stream=stream)
    yield stream
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_a_message_is_logged_without_what_its_schema_calls_sensitive() -> None:
    request = message_pb2.SendRequest(session_id="a", to=PHONE, request_id="r", text=message_pb2.Text(body="hello"))
    assert loggable(request) == {
        "session_id": "a",
        "to": "<personal>",
        "request_id": "r",
        "text": {"body": "<personal>"},
    }
    qr = session_pb2.StreamQRResponse(code=session_pb2.QrCode(text="secret", png=b"x", terminal_text="x", position=1))
    assert loggable(qr) == {"code": {"text": "<secret>", "png": "<secret>", "terminal_text": "<secret>", "position": 1}}


def test_every_kind_of_field_can_be_logged() -> None:
    session = session_pb2.Session(
        session_id="a", labels={"k": "v"}, state=session_pb2.Session.STATE_CONNECTED, proxy_url="http://u:p@h:1"
    )
    session.create_time.FromSeconds(0)
    session.account.jid = PHONE
    listed = loggable(session_pb2.ListResponse(sessions=[session]))["sessions"][0]
    assert listed["labels"] == {"k": "v"}
    assert listed["state"] == "STATE_CONNECTED"
    assert listed["proxy_url"] == "<secret>"
    assert listed["account"] == {"jid": "<personal>"}
    assert PHONE not in json.dumps(listed)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"could not send to {PHONE}", "could not send to …78"),
        (f"+{PHONE}:3@s.whatsapp.net went", "…78:3@s.whatsapp.net went"),
        ("postgres://zap:hunter2@db/zap", "postgres://<secret>@db/zap"),
        ("authorization: Bearer hunter2", "authorization: Bearer <secret>"),
        ("host=db password=hunter2 user=zap", "host=db password=<secret> user=zap"),
        (f"code {code().text}", "code <secret>"),
        ("took 12345 ms at 2026-03-01T12:00:00.123456Z", "took 12345 ms at 2026-03-01T12:00:00.123456Z"),
        ("incident 3f2504e04f8941d39a0c0305e82c3301", "incident 3f2504e04f8941d39a0c0305e82c3301"),
    ],
)
def test_free_text_is_masked_by_shape(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_ours_and_every_librarys_lines_are_json_without_secrets(lines: io.StringIO) -> None:
    @dataclass
    class Thing:
        phone: str = field(default=PHONE)

    log = structlog.get_logger("zap")
    with structlog.contextvars.bound_contextvars(session_id="a"):
        log.info("sent", to=PHONE, token="hunter2", nested={"password": "hunter2", "list": [PHONE]}, thing=Thing())
        logging.getLogger("library").warning("connected to %s", "redis://:hunter2@redis")
    log.error("failed", exc_info=RuntimeError(f"postgres://zap:hunter2@db knows {PHONE}"))
    written = lines.getvalue()
    assert "hunter2" not in written
    assert PHONE not in written
    sent, library, failed = (json.loads(line) for line in written.splitlines())
    assert (sent["event"], sent["session_id"], sent["level"], sent["logger"]) == ("sent", "a", "info", "zap")
    assert (library["event"], library["session_id"]) == ("connected to redis://<secret>@redis", "a")
    assert "RuntimeError" in failed["exception"]


def test_what_is_below_the_level_is_not_written(lines: io.StringIO) -> None:
    structlog.get_logger("zap").debug("detail")
    logging.getLogger("library").debug("detail")
    assert not lines.getvalue()


class TestPages:
    @pytest.fixture
    async def address(self) -> AsyncIterator[str]:
        self.reasons: dict[str, str] = {}
        registry = CollectorRegistry()
        Counter("zap_things", "Things.", registry=registry).inc()
        pages = HealthAndMetricsServer("127.0.0.1:0", lambda: self.reasons, registry)
        yield f"http://127.0.0.1:{await pages.start()}"
        await pages.stop()

    async def test_readiness_says_what_is_missing(self, address: str) -> None:
        async with aiohttp.ClientSession() as client:
            async with client.get(f"{address}/readyz") as response:
                assert (response.status, await response.json()) == (200, {"status": "ready", "reasons": {}})
            self.reasons["database"] = "no answer for 12 s"
            async with client.get(f"{address}/readyz") as response:
                assert response.status == 503
                assert (await response.json())["reasons"] == {"database": "no answer for 12 s"}
            async with client.get(f"{address}/livez") as response:
                assert response.status == 200

    async def test_metrics_are_prometheus_text(self, address: str) -> None:
        async with aiohttp.ClientSession() as client, client.get(f"{address}/metrics") as response:
            assert "zap_things_total 1.0" in await response.text()
            assert response.headers["Content-Type"].startswith("text/plain")

    async def test_a_port_that_is_taken_names_the_setting(self, address: str) -> None:
        second = HealthAndMetricsServer(address.removeprefix("http://"), dict, CollectorRegistry())
        with pytest.raises(CannotServePages, match="ZAP_HTTP_LISTEN"):
            await second.start()

    async def test_a_request_that_does_not_arrive_ends_its_connection(self) -> None:
        pages = HealthAndMetricsServer("127.0.0.1:0", dict, CollectorRegistry(), idle=0.2)
        port = await pages.start()
        try:
            for part in (b"", b"GET /livez HTTP/1.1\r\nHost: a"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(part)
                async with asyncio.timeout(10):
                    assert await reader.read() == b""
                writer.close()
        finally:
            await pages.stop()

    async def test_connections_over_the_bound_are_closed_and_leave_the_others_alone(self) -> None:
        pages = HealthAndMetricsServer("127.0.0.1:0", dict, CollectorRegistry(), connections=2)
        port = await pages.start()
        try:
            opened = []
            async with asyncio.timeout(10):
                for _ in range(2):
                    opened.append(await asyncio.open_connection("127.0.0.1", port))
                    opened[-1][1].write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert (await opened[-1][0].readline()).startswith(b"HTTP/1.1 200")
                opened.append(await asyncio.open_connection("127.0.0.1", port))
                with contextlib.suppress(ConnectionResetError):
                    assert await opened[-1][0].read() == b""
                opened[0][1].write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
                assert await opened[0][0].readuntil(b"alive")
                assert await opened[0][0].readuntil(b"alive")
            for _, writer in opened:
                writer.close()
        finally:
            await pages.stop()
