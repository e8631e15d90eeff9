"""Pictures for tests."""

import io

from PIL import Image


def jpeg(width: int = 64, height: int = 64) -> bytes:
    """A real JPEG of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), "green").save(out, "JPEG")
    return out.getvalue()
