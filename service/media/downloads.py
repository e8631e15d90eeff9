"""Reads files from WhatsApp for callers: fetches, decrypts and checks them as a stream, on any node."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from service.domain.caller import Caller
from service.domain.errors import FieldViolation, InvalidArgument, NotFound, Unavailable, ZapError
from service.domain.media import MediaKind, MediaLimits, StoredMedia
from service.media.budget import Budget
from service.media.decryption import DecryptingStream, damaged, encrypted_size
from service.media.http import FetchedBody, FetchFailed, MediaHttpClient
from service.ports.sessions import SessionStore

_TRIES = 3
_RETRY_S = 1.0
"""Seconds before the second try; twice as many before the third."""
_GONE = frozenset({403, 404, 410})
_MMS_TYPES = {MediaKind.STICKER: "image"}


class Downloads:
    """Implements MediaService.Download."""

    def __init__(
        self,
        sessions: Callable[[Caller], SessionStore],
        http: MediaHttpClient,
        limits: MediaLimits,
        default_proxy: str = "",
        retry_s: float = _RETRY_S,
    ) -> None:
        """Take the proxy of sessions that name none."""
        self._sessions = sessions
        self._http = http
        self._limits = limits
        self._default_proxy = default_proxy
        self.timeout = limits.timeout
        """Seconds that one download may take."""
        self._retry_s = retry_s
        self._budget = Budget(
            limits.downloads,
            "TOO_MANY_DOWNLOADS",
            "this node has reached its limit of {amount} downloads at the same time; call again, or another node",
        )

    async def download(self, caller: Caller, session_id: str, media: StoredMedia) -> AsyncGenerator[bytes, None]:
        """Yield the file. The bytes count only if the stream ends without an error.

        Raise NotFound, DataLoss, InvalidArgument (MEDIA_TOO_LARGE), ResourceExhausted or Unavailable.
        """
        if (media.size or 0) > self._limits.largest_download:
            raise self._too_large(f"has {media.size} bytes")
        session = await self._sessions(caller).get(session_id)
        with self._budget.lend(1):
            proxy = session.proxy_url or self._default_proxy
            async with aclosing(self._fetch_with_retries(session_id, media, proxy)) as chunks:
                async for data in chunks:
                    yield data

    async def _fetch_with_retries(self, session_id: str, media: StoredMedia, proxy: str) -> AsyncGenerator[bytes, None]:
        """Try again only while the caller has no bytes: they cannot be taken back."""
        for number in range(1, _TRIES + 1):
            has_yielded = False
            try:
                async with aclosing(self._fetch(session_id, media, proxy)) as chunks:
                    async for data in chunks:
                        has_yielded = True
                        yield data
                return
            except Unavailable:
                if has_yielded or number == _TRIES:
                    raise
            await asyncio.sleep(self._retry_s * number)

    async def _fetch(self, session_id: str, media: StoredMedia, proxy: str) -> AsyncGenerator[bytes, None]:
        try:
            async with self._http.get(_target(media), proxy) as body:
                self._check_answer(session_id, media, body)
                stream, received = DecryptingStream(media), 0
                async for data in body.chunks():
                    received += len(data)
                    self._check_received(media, received)
                    if plain := stream.update(data):
                        yield plain
                if last := stream.finish():
                    yield last
        except FetchFailed as error:
            raise Unavailable(
                f"WhatsApp's media host could not be reached, or hung up ({error})",
                reason="MEDIA_HOST_UNREACHABLE",
                metadata={"session_id": session_id, "detail": str(error)},
            ) from error

    def _check_answer(self, session_id: str, media: StoredMedia, body: FetchedBody) -> None:
        if body.status != 200:
            raise _status_error(session_id, media, body.status)
        if body.length is not None:
            self._check_received(media, body.length)
            if media.size is not None and body.length < encrypted_size(media.size):
                raise damaged("it is shorter than was stated")

    def _check_received(self, media: StoredMedia, received: int) -> None:
        """Bound what is read by the stated size, and by the setting."""
        if media.size is not None and received > encrypted_size(media.size):
            raise damaged("it is longer than was stated")
        if received > encrypted_size(self._limits.largest_download):
            raise self._too_large("is larger")

    def _too_large(self, words: str) -> InvalidArgument:
        violation = FieldViolation("file", f"{words}; ZAP_MAX_DOWNLOAD allows {self._limits.largest_download} bytes")
        return InvalidArgument([violation], reason="MEDIA_TOO_LARGE")


def _target(media: StoredMedia) -> str:
    """Return what is asked of the media host."""
    token = base64.urlsafe_b64encode(media.encrypted_sha256).decode()
    kind = _MMS_TYPES.get(media.kind, media.kind.name.lower())
    joint = "&" if "?" in media.direct_path else "?"
    return f"{media.direct_path}{joint}hash={token}&mms-type={kind}&__wa-mms="


def _status_error(session_id: str, media: StoredMedia, status: int) -> ZapError:
    metadata = {"session_id": session_id, "status": str(status)}
    if status in _GONE:
        return NotFound(
            f"WhatsApp has this file no more (HTTP {status}); it keeps files for some weeks. The sender must send it"
            " again.",
            reason="MEDIA_EXPIRED",
            metadata={**metadata, "encrypted_sha256": media.encrypted_sha256.hex()},
        )
    return Unavailable(
        f"WhatsApp's media host answered with HTTP {status}; call again",
        reason="MEDIA_HOST_FAILED",
        metadata=metadata,
        retry_after=5.0,
    )
