"""Stores files of callers at WhatsApp, through the process of a session that this node owns."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

from service.domain.call_failures import CallFailure, call_error
from service.domain.caller import Caller
from service.domain.errors import DataLoss, FieldViolation, InvalidArgument, ResourceExhausted, Unavailable, ZapError
from service.domain.media import MediaKind, MediaLimits, NewUpload, StoredMedia
from service.media.budget import Budget
from service.media.sealed_file import SealedFile
from service.media.sniffing import HEAD_BYTES, described, mismatch, sniff
from service.ports.processes import CallFailed, SessionProcess
from service.ports.sessions import SessionStore
from service.sessions.process_calls import not_connected
from service.sessions.registry import RunnerRegistry

_MIN_STORE_S = 5.0
"""Seconds that the library has for a file that arrived late."""


class Uploads:
    """Implements MediaService.Upload."""

    def __init__(
        self, sessions: Callable[[Caller], SessionStore], registry: RunnerRegistry, limits: MediaLimits
    ) -> None:
        self._sessions = sessions
        self._registry = registry
        self._limits = limits
        self._running: set[asyncio.Task[StoredMedia]] = set()
        self._memory = Budget(
            limits.upload_memory,
            "UPLOAD_MEMORY_USED",
            "uploads that are under way use the {amount} bytes that this node has for them (ZAP_UPLOAD_MEMORY); call"
            " again",
        )

    async def upload(self, caller: Caller, new: NewUpload, chunks: AsyncIterator[bytes]) -> StoredMedia:
        """Store a file. Its arrival and WhatsApp's answer together take at most ZAP_MEDIA_TIMEOUT.

        Raise InvalidArgument, ResourceExhausted, DataLoss, the errors of `not_connected`, or Unavailable.
        """
        deadline = time.monotonic() + self._limits.timeout
        self._check_size(new)
        await self._process(caller, new.session_id)
        with ExitStack() as held:
            held.enter_context(self._memory.lend(new.size))
            file = held.enter_context(SealedFile())
            await self._receive(new, chunks, file, deadline)
            sha256 = file.seal()
            # The session may have lost its connection, or got another process, while the file arrived.
            process = await self._process(caller, new.session_id)
            # The upload goes on if the caller hangs up, and holds its memory until the process has answered.
            task = asyncio.create_task(self._store(process, new, file, deadline, held.pop_all()))
        self._running.add(task)
        task.add_done_callback(self._forget)
        stored = await asyncio.shield(task)
        if (stored.sha256, stored.size) != (sha256, new.size):
            raise DataLoss(
                "WhatsApp stored other bytes than those that were sent; do not use them, and upload again",
                reason="UPLOAD_DAMAGED",
                metadata={"session_id": new.session_id},
            )
        return described(replace(stored, mime_type=new.mime_type, create_time=datetime.now(UTC)), file.head)

    async def _process(self, caller: Caller, session_id: str) -> SessionProcess:
        runner = self._registry.get(session_id)
        connection = runner.connection if runner is not None else None
        if connection is None:
            raise not_connected(await self._sessions(caller).get(session_id))
        return connection[1]

    def _check_size(self, new: NewUpload) -> None:
        largest = self._limits.largest[new.kind]
        if new.size > min(largest, self._limits.upload_memory):
            raise _too_large(new, min(largest, self._limits.upload_memory))

    async def _receive(self, new: NewUpload, chunks: AsyncIterator[bytes], file: SealedFile, deadline: float) -> None:
        async for chunk in chunks:
            # Not a timeout around the iteration: cancelling gRPC's read is unsafe, and each read has its own limit.
            if time.monotonic() > deadline:
                raise _too_slow(new.session_id)
            self._take(new, chunk, file)
            # Not until the next one has arrived.
            del chunk
        if file.size != new.size:
            raise _wrong_size(new, f"{file.size} bytes came")

    def _take(self, new: NewUpload, chunk: bytes, file: SealedFile) -> None:
        """Write a chunk into the file, and refuse the file as soon as it cannot be what was announced."""
        if file.size + len(chunk) > new.size:
            raise _wrong_size(new, f"more than {new.size} bytes came")
        needed = min(HEAD_BYTES, new.size)
        has_head = file.size >= needed
        try:
            file.write(chunk)
        except OSError as error:
            raise ResourceExhausted(
                f"the node has no memory for the file ({error.strerror}); call again",
                reason="UPLOAD_MEMORY_USED",
                metadata={"session_id": new.session_id, "detail": error.strerror or ""},
            ) from error
        if not has_head and file.size >= needed:
            self._check_type(new, file.head)

    def _check_type(self, new: NewUpload, head: bytes) -> None:
        if wrong := mismatch(new.kind, new.mime_type, head):
            raise InvalidArgument([FieldViolation("header.mime_type", wrong)], reason="MEDIA_TYPE_MISMATCH")
        found = sniff(head)
        largest = self._limits.largest_still_sticker
        if new.kind is MediaKind.STICKER and not (found and found.is_animated) and new.size > largest:
            raise _too_large(new, largest)

    async def _store(
        self, process: SessionProcess, new: NewUpload, file: SealedFile, deadline: float, held: ExitStack
    ) -> StoredMedia:
        with held:
            try:
                left = max(_MIN_STORE_S, deadline - time.monotonic())
                return await process.upload(new.kind, file.descriptor, new.size, left)
            except CallFailed as error:
                raise _upload_error(new.session_id, error) from error

    def _forget(self, task: asyncio.Task[StoredMedia]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Retrieve the exception, so that asyncio does not log it when the caller has hung up.
            task.exception()


def _upload_error(session_id: str, error: CallFailed) -> ZapError:
    """Return the error for a caller. A file that is in no message is visible to no one, so a retry never harms."""
    if not error.certain:
        return _too_slow(session_id)
    kind = CallFailure.__members__.get(error.kind, CallFailure.UPLOAD_FAILED)
    return call_error(kind, session_id, str(error))


def _too_slow(session_id: str) -> Unavailable:
    return Unavailable(
        "the upload was not done within ZAP_MEDIA_TIMEOUT, or the session's process ended; call again",
        reason="UPLOAD_TIMED_OUT",
        metadata={"session_id": session_id},
        retry_after=5.0,
    )


def _too_large(new: NewUpload, largest: int) -> InvalidArgument:
    words = f"is {new.size} bytes; this node takes files of kind {new.kind.name} of up to {largest} bytes"
    return InvalidArgument([FieldViolation("header.size", words)], reason="MEDIA_TOO_LARGE")


def _wrong_size(new: NewUpload, came: str) -> InvalidArgument:
    return InvalidArgument([FieldViolation("header.size", f"is {new.size}, but {came}")], reason="MEDIA_SIZE_MISMATCH")
