"""Serves zap.v1.MediaService: parses requests, calls the core, converts results."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc

from service.api.grpc.context import Context, caller_of
from service.api.grpc.receiving import ConvertedStream
from service.domain.errors import Unavailable
from service.media.downloads import Downloads
from service.media.uploads import Uploads
from service.protocol.media import chunk_of, media_to_download, new_upload, upload_response
from zap.v1 import media_pb2 as pb
from zap.v1.media_pb2_grpc import MediaServiceServicer

NAME = pb.DESCRIPTOR.services_by_name["MediaService"].full_name


class MediaServicer(MediaServiceServicer):
    """Translates between the proto and the core's uploads and downloads."""

    def __init__(self, uploads: Uploads, downloads: Downloads) -> None:
        self._uploads = uploads
        self._downloads = downloads

    async def Upload(self, request_iterator: AsyncIterator[pb.UploadRequest], context: Context) -> pb.UploadResponse:
        new = new_upload(await anext(request_iterator))
        chunks = ConvertedStream(chunk_of, request_iterator)
        return upload_response(await self._uploads.upload(caller_of(context), new, chunks))

    async def Download(self, request: pb.DownloadRequest, context: Context) -> None:  # type: ignore[override]
        """Write the responses here, with a timeout: a generator that waits for its caller cannot limit the wait."""
        media = media_to_download(request)
        try:
            async with (
                asyncio.timeout(self._downloads.timeout),
                aclosing(self._downloads.download(caller_of(context), request.session_id, media)) as chunks,
            ):
                async for chunk in chunks:
                    await context.write(pb.DownloadResponse(chunk=chunk))
        except grpc.aio.InternalError as error:
            # The caller has disconnected, and gRPC has not cancelled this task yet.
            raise asyncio.CancelledError from error
        except TimeoutError as error:
            raise _too_slow(request.session_id, self._downloads.timeout) from error


def _too_slow(session_id: str, timeout: float) -> Unavailable:
    return Unavailable(
        f"the download was not done within {timeout:g} s (ZAP_MEDIA_TIMEOUT), because WhatsApp or the caller is slow;"
        " discard what was received, and call again",
        reason="DOWNLOAD_TIMED_OUT",
        metadata={"session_id": session_id},
    )
