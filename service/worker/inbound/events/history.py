"""Counts the contents of history pieces, parsed only as far as history.proto of zap.worker.v1 names fields."""

from collections.abc import Iterator, Sequence

from service.worker.inbound.content.limits import past_moment
from service.worker.inbound.events.normalize import undated_frame
from zap.v1 import event_pb2, history_pb2
from zap.worker.v1 import frames_pb2
from zap.worker.v1 import history_pb2 as worker_pb2

#: Kinds in the order of WhatsApp's numbers.
_KINDS: Sequence["history_pb2.HistorySync.Kind.ValueType"] = (
    history_pb2.HistorySync.KIND_INITIAL_BOOTSTRAP,
    history_pb2.HistorySync.KIND_INITIAL_STATUS,
    history_pb2.HistorySync.KIND_FULL,
    history_pb2.HistorySync.KIND_RECENT,
    history_pb2.HistorySync.KIND_PUSH_NAMES,
    history_pb2.HistorySync.KIND_NON_BLOCKING_DATA,
    history_pb2.HistorySync.KIND_ON_DEMAND,
)


def synced(piece: worker_pb2.HistoryPiece) -> frames_pb2.Frame:
    """Convert a history piece to its counts and time range."""
    history = piece.data
    known = 0 <= history.sync_type < len(_KINDS)
    sync = history_pb2.HistorySync(
        kind=_KINDS[history.sync_type] if known else history_pb2.HistorySync.KIND_UNSPECIFIED,
        chunk=history.chunk_order,
        progress_percent=min(history.progress, 100) if history.HasField("progress") else None,
        conversations=len(history.conversations),
        messages=sum(len(chat.messages) for chat in history.conversations) + len(history.status_messages),
        push_names=len(history.push_names),
    )
    if seconds := [second for second in _seconds(history) if past_moment(second)]:
        sync.oldest_message_time.FromSeconds(min(seconds))
        sync.newest_message_time.FromSeconds(max(seconds))
    return undated_frame(event_pb2.Event.TYPE_HISTORY_SYNC, history_sync=sync)


def _seconds(history: worker_pb2.History) -> Iterator[int]:
    for chat in history.conversations:
        for entry in chat.messages:
            yield entry.message.timestamp
    for message in history.status_messages:
        yield message.timestamp
