"""Downloads from a media host on this machine, through proxies, by TLS."""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from service.domain.caller import ANONYMOUS
from service.domain.errors import DataLoss, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from service.domain.media import StoredMedia
from service.media.downloads import Downloads
from service.media.http import MediaHttpClient, Timeouts
from service.ports.sessions import NewSession
from tests.fakes.core import FakeSessions, media_limits
from tests.media_host import MediaHost
from tests.stored_media import stored

DATA = bytes(number % 251 for number in range(700_001))
BODY, MEDIA = stored(DATA, path="/v/t62/1.enc?oh=1")
PATH = "/v/t62/1.enc"


@asynccontextmanager
async def downloading(
    host: MediaHost, scheme: str = "http", login: str = "", default: bool = False, **limits: Any
) -> AsyncIterator[Downloads]:
    sessions = FakeSessions()
    async with host.listening(scheme) as address:
        proxy = f"{scheme}://{login}{address}"
        new = NewSession("shop", "", "", {}, "" if default else proxy, "")
        await sessions.store.create(new)
        http = MediaHttpClient(host.context, Timeouts(connect=5, read=limits.pop("read", 5)))
        store = lambda _: sessions.store  # noqa: E731 - one line
        yield Downloads(store, http, media_limits(**limits), proxy if default else "", retry_s=0.01)


async def read(downloads: Downloads, media: StoredMedia = MEDIA, session_id: str = "shop") -> bytes:
    return b"".join([chunk async for chunk in downloads.download(ANONYMOUS, session_id, media)])


@pytest.fixture
def host() -> MediaHost:
    return MediaHost(bodies={PATH: BODY})


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
@pytest.mark.parametrize("login", ["", "ann:p%40ss@"])
async def test_a_file_comes_through_the_session_s_proxy(host: MediaHost, scheme: str, login: str) -> None:
    async with downloading(host, scheme, login) as downloads:
        assert await read(downloads) == DATA
    # The proxy resolves the name.
    assert host.tunnels == ["mmg.whatsapp.net:443"]
    shown = "ann:p@ss" if scheme.startswith("socks") else f"Basic {base64.b64encode(b'ann:p@ss').decode()}"
    assert host.logins == ([shown] if login else [])
    (head,) = host.requests
    token = base64.urlsafe_b64encode(MEDIA.encrypted_sha256).decode()
    assert head.startswith(f"GET /v/t62/1.enc?oh=1&hash={token}&mms-type=document&__wa-mms= HTTP/1.1\r\n")
    assert "\r\norigin: https://web.whatsapp.com\r\n" in head.lower()
    assert "\r\nhost: mmg.whatsapp.net\r\n" in head.lower()


async def test_a_session_without_a_proxy_uses_that_of_the_node(host: MediaHost) -> None:
    async with downloading(host, default=True) as downloads:
        assert await read(downloads) == DATA


async def test_a_session_without_any_proxy_uses_that_of_the_environment(
    host: MediaHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with downloading(host, default=True) as downloads:
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{host.port}")
        monkeypatch.delenv("https_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        downloads._default_proxy = ""
        assert await read(downloads) == DATA


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_file_that_whatsapp_has_no_more_is_expired(host: MediaHost, status: int) -> None:
    host.statuses = [status]
    async with downloading(host) as downloads:
        with pytest.raises(NotFound) as gone:
            await read(downloads)
    assert gone.value.reason == "MEDIA_EXPIRED"
    assert gone.value.metadata["encrypted_sha256"] == MEDIA.encrypted_sha256.hex()
    assert len(host.requests) == 1


async def test_an_error_of_the_host_is_retried_a_few_times(host: MediaHost) -> None:
    host.statuses = [503, 500]
    async with downloading(host) as downloads:
        assert await read(downloads) == DATA
        host.statuses = [503, 500, 502]
        with pytest.raises(Unavailable, match="HTTP 502") as failed:
            await read(downloads)
    assert failed.value.reason == "MEDIA_HOST_FAILED"


async def test_a_body_that_breaks_off_is_not_taken_for_the_file(host: MediaHost) -> None:
    host.cut_after = 300_000
    async with downloading(host) as downloads:
        with pytest.raises(Unavailable) as failed:
            await read(downloads)
        assert failed.value.reason == "MEDIA_HOST_UNREACHABLE"
        # The caller has bytes already, so it has to decide on a retry.
        assert len(host.requests) == 1
        host.states_length = False
        with pytest.raises(DataLoss, match="length"):
            await read(downloads)


@pytest.mark.parametrize("states_length", [True, False])
async def test_a_body_is_read_no_further_than_its_sender_stated(host: MediaHost, states_length: bool) -> None:
    host.states_length = states_length
    async with downloading(host) as downloads:
        with pytest.raises(DataLoss, match="longer than was stated"):
            await read(downloads, replace(MEDIA, size=1000))
        with pytest.raises(DataLoss):
            await read(downloads, replace(MEDIA, size=len(DATA) + 1000))


@pytest.mark.parametrize("states_length", [True, False])
async def test_a_body_is_read_no_further_than_the_setting_allows(host: MediaHost, states_length: bool) -> None:
    host.states_length = states_length
    async with downloading(host, largest_download=500_000) as downloads:
        with pytest.raises(InvalidArgument, match="ZAP_MAX_DOWNLOAD"):
            await read(downloads)
        assert host.requests == []
        with pytest.raises(InvalidArgument, match="ZAP_MAX_DOWNLOAD") as refused:
            await read(downloads, replace(MEDIA, size=None))
    assert refused.value.reason == "MEDIA_TOO_LARGE"


async def test_a_flipped_byte_is_found(host: MediaHost) -> None:
    host.bodies[PATH] = BODY[:-1] + bytes([BODY[-1] ^ 1])
    async with downloading(host) as downloads:
        with pytest.raises(DataLoss, match="authentication code"):
            await read(downloads)


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/v/t62/2.enc",
        "http://mmg.whatsapp.net/v/t62/2.enc",
        "https://mmg.whatsapp.net:8443/v/t62/2.enc",
        "https://evil.example#.whatsapp.net/v/t62/2.enc",
        "https://whatsapp.net.evil.example/v/t62/2.enc",
        "https://[::1",
        "",
    ],
)
async def test_a_redirect_to_another_host_is_not_followed(host: MediaHost, location: str) -> None:
    host.statuses, host.headers = [302] * 3, [f"Location: {location}"]
    async with downloading(host) as downloads:
        with pytest.raises(Unavailable, match="redirects"):
            await read(downloads)
    assert set(host.tunnels) == {"mmg.whatsapp.net:443"}


async def test_a_redirect_within_whatsapp_is_followed(host: MediaHost) -> None:
    host.statuses, host.headers = [302], ["Location: https://media-fra3-1.cdn.whatsapp.net/v/t62/1.enc?oh=2"]
    async with downloading(host) as downloads:
        assert await read(downloads) == DATA
        host.statuses = [302] * 20
        with pytest.raises(Unavailable, match="more than 3 redirects"):
            await read(downloads)
    assert host.tunnels[:2] == ["mmg.whatsapp.net:443", "media-fra3-1.cdn.whatsapp.net:443"]


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_a_proxy_that_refuses_is_named_without_its_password(host: MediaHost, scheme: str) -> None:
    host.refuses = True
    async with downloading(host, scheme, "ann:geheim@") as downloads:
        with pytest.raises(Unavailable, match="proxy refused") as failed:
            await read(downloads)
    assert failed.value.reason == "MEDIA_HOST_UNREACHABLE"
    assert "geheim" not in str(failed.value)


async def test_a_host_that_cannot_prove_its_name_is_not_read(host: MediaHost) -> None:
    async with downloading(host) as downloads:
        downloads._http = MediaHttpClient(MediaHost().context)
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await read(downloads)
    assert host.requests == []


async def test_a_host_that_says_nothing_is_given_up(host: MediaHost) -> None:
    host.silent = True
    async with downloading(host, read=0.05) as downloads:
        with pytest.raises(Unavailable, match="sent nothing"):
            await read(downloads)


async def test_an_unknown_session_is_not_found(host: MediaHost) -> None:
    async with downloading(host) as downloads:
        with pytest.raises(NotFound) as unknown:
            await read(downloads, session_id="other")
    assert unknown.value.reason == "SESSION_NOT_FOUND"


async def test_downloads_are_limited_and_a_caller_that_leaves_makes_room(
    host: MediaHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "asyncio")
    async with downloading(host, downloads=1) as downloads:
        first = downloads.download(ANONYMOUS, "shop", MEDIA)
        assert await anext(first)
        with pytest.raises(ResourceExhausted) as refused:
            await read(downloads)
        assert refused.value.reason == "TOO_MANY_DOWNLOADS"
        await first.aclose()
        assert await read(downloads) == DATA
        # Its connection is closed too.
        await asyncio.sleep(0)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
