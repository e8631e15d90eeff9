"""Holds what the conversion of a message's content needs besides the content."""

from dataclasses import dataclass
from typing import Any

from service.worker.inbound.content.limits import Bounds
from service.worker.inbound.content.targets import Source, target
from zap.v1 import content_pb2 as pb


@dataclass(frozen=True)
class Reading:
    """The source of a message that is being converted, and the bounds of its event."""

    source: Source
    bounds: Bounds
    is_inner: bool = False
    """Whether the content is within another one. A content within it is not converted."""

    def target(self, key: Any) -> pb.MessageTarget:
        """Return the message that a key in the content names."""
        return target(key, self.source, self.bounds)
