"""Downloads a file of a message into a file of this machine (`zapctl download`)."""

from pathlib import Path

import typer
from google.protobuf.json_format import Parse, ParseError

from service.cli.connection import ServerConnection
from zap.v1 import content_pb2, media_pb2

_TIMEOUT_S = 3600.0


def content_of(text: str) -> content_pb2.Content:
    """Return a message's content, given as protobuf JSON. Raise typer.BadParameter."""
    try:
        return Parse(text, content_pb2.Content(), ignore_unknown_fields=True)
    except ParseError as error:
        raise typer.BadParameter(f"stdin is no content of a message in JSON: {error}", param_hint="stdin") from None


def download(server: ServerConnection, request: media_pb2.DownloadRequest, target: Path) -> int:
    """Write the file, and return its bytes. Nothing is at the target before all checks have passed."""
    unfinished = target.with_name(f"{target.name}.part")
    try:
        with server.media() as media, unfinished.open("wb") as file:
            for response in media.Download(request, metadata=server.metadata, timeout=_TIMEOUT_S):
                file.write(response.chunk)
        return unfinished.replace(target).stat().st_size
    finally:
        unfinished.unlink(missing_ok=True)
