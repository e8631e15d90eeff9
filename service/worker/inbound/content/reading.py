"""A message that is being read: where it came from, and how much of it there is room for."""

from dataclasses import dataclass
from typing import Any

from service.worker.inbound.content.limits import Bounds
from service.worker.inbound.content.targets import Source, target
from zap.v1 import content_pb2 as pb


@dataclass(frozen=True)
class Reading:
    """What those who tell of contents need besides the content."""

    source: Source
    bounds: Bounds
    is_inner: bool = False
    """It is a content within another one: those within it in turn are not followed."""

    def target(self, key: Any) -> pb.MessageTarget:
        """The message that a key in it names."""
        return target(key, self.source, self.bounds)
