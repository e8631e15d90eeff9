"""Uploads files for the node, each within a time limit that the library does not have.

A thread that exceeds the limit cannot be ended: it is lost, with the memory of its file, until the library returns. Too
many of them end the process.
"""

import ctypes
import datetime
import fcntl
import io
import mmap
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from google.protobuf.message import Message

from service.domain.media import LARGEST_FILE, MediaKind, StoredMedia
from service.media.reference import write_reference
from service.media.sniffing import HEAD_BYTES, described
from service.worker.process.redaction import redact
from service.worker.session.dispatch import DefinitelyNotDone
from zap.v1 import media_pb2, message_pb2
from zap.worker.v1 import calls_pb2

MOST_LOST_THREADS = 4
MOST_LOST_BYTES = 64 * 1024 * 1024
"""Bytes of the files of lost threads. The library holds twice as many beside them."""

_INLINE_TIMEOUT_S = 20.0
"""Seconds for a file that is in a message: less than a send has."""

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class UploadTimedOut(Exception):
    """The library has not returned in time; the file may yet be stored."""


class MediaCalls:
    """Runs uploads, and counts the threads that it has lost."""

    def __init__(self, store: Callable[[int, int, MediaKind], Any], on_too_many: Callable[[str], None]) -> None:
        """Take `store`, which stores bytes by address and size, and `on_too_many`, which ends the session."""
        self._store = store
        self._on_too_many = on_too_many
        self._changing = threading.Lock()
        self._lost: dict[Future[Any], int] = {}
        """Bytes of the file of each lost thread."""

    def upload(self, request: calls_pb2.Upload, attachment: io.FileIO | None) -> calls_pb2.UploadResult:
        """Store the attached file at WhatsApp. Raise DefinitelyNotDone, UploadTimedOut or the library's exception."""
        kind = MediaKind[media_pb2.MediaKind.Name(request.kind).removeprefix("MEDIA_KIND_")]
        mapped = _map(attachment, request.size)
        timeout = request.timeout.ToTimedelta().total_seconds()
        stored = self._within(timeout, request.size, lambda: self._store_mapped(mapped, request.size, kind))
        return calls_pb2.UploadResult(
            direct_path=stored.DirectPath,
            media_key=stored.MediaKey,
            encrypted_sha256=stored.FileEncSHA256,
            sha256=stored.FileSHA256,
            size=stored.FileLength,
        )

    def store_inline(self, content: Message) -> None:
        """Store the file that is in a SendRequest, if one is, and put its reference in its place.

        Raise DefinitelyNotDone: a message whose file is not stored is not sent.
        """
        field = content.WhichOneof("content") if isinstance(content, message_pb2.SendRequest) else None
        part = getattr(content, field) if field else None
        if part is None or not hasattr(part, "file") or not part.file.HasField("inline"):
            return
        kind, data = MediaKind[str(field).upper()], part.file.inline.data
        address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
        try:
            # The bytes live as long as the function that refers to them.
            stored = self._within(_INLINE_TIMEOUT_S, len(data), lambda: self._store(address, len(data), kind))
        except Exception as error:
            raise DefinitelyNotDone(f"the file was not stored at WhatsApp: {redact(str(error))}") from error
        media = StoredMedia(
            kind,
            stored.DirectPath,
            stored.MediaKey,
            stored.FileEncSHA256,
            stored.FileSHA256,
            stored.FileLength,
            part.file.inline.mime_type,
            datetime.datetime.now(datetime.UTC),
        )
        part.file.reference = write_reference(described(media, data[:HEAD_BYTES]))

    def _within(self, timeout: float, size: int, store: Callable[[], Any]) -> Any:
        """Return what a function returns that stores a file. Raise UploadTimedOut, or what it raises."""
        outcome: Future[Any] = Future()
        threading.Thread(target=_run, args=(store, outcome), name="upload", daemon=True).start()
        try:
            return outcome.result(timeout)
        except TimeoutError:
            self._lose(outcome, size)
            raise UploadTimedOut(f"the library has not stored the file within {timeout:g} s") from None

    def _store_mapped(self, mapped: mmap.mmap, size: int, kind: MediaKind) -> Any:
        first = ctypes.c_char.from_buffer(mapped)
        try:
            return self._store(ctypes.addressof(first), size, kind)
        finally:
            # The mapping cannot be closed while something refers to its address.
            del first
            mapped.close()

    def _lose(self, outcome: "Future[Any]", size: int) -> None:
        with self._changing:
            self._lost[outcome] = size
            count, total = len(self._lost), sum(self._lost.values())
        outcome.add_done_callback(self._regain)
        if count >= MOST_LOST_THREADS or total >= MOST_LOST_BYTES:
            self._on_too_many(f"{count} uploads, of {total} bytes together, do not come to their end")

    def _regain(self, outcome: "Future[Any]") -> None:
        with self._changing:
            self._lost.pop(outcome, None)


def _run(store: Callable[[], Any], outcome: "Future[Any]") -> None:
    try:
        stored = store()
    except Exception as error:  # noqa: BLE001 - the thread that waits raises it
        outcome.set_exception(error)
    else:
        outcome.set_result(stored)


def _map(attachment: io.FileIO | None, size: int) -> mmap.mmap:
    """Map the file and close it. Raise DefinitelyNotDone unless it is sealed: a file that shrinks kills the process."""
    if attachment is None:
        raise DefinitelyNotDone("no file came with the call")
    with attachment:
        seals = fcntl.fcntl(attachment.fileno(), fcntl.F_GET_SEALS)
        if seals & _SEALS != _SEALS or not 0 < os.fstat(attachment.fileno()).st_size == size <= LARGEST_FILE:
            raise DefinitelyNotDone("the file that came with the call is not sealed, or of another size")
        # A private mapping is writable, which ctypes wants to have for an address; its pages stay those of the file.
        return mmap.mmap(attachment.fileno(), size, access=mmap.ACCESS_COPY)
