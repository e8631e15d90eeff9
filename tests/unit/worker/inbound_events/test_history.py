from neonize.proto import Neonize_pb2 as neonize
from neonize.proto.waHistorySync import WAWebProtobufsHistorySync_pb2 as wa

from service.worker.inbound.events.history import synced
from zap.v1 import history_pb2
from zap.worker.v1 import history_pb2 as worker_pb2

THEN = 1_700_000_000


def read(history: wa.HistorySync) -> worker_pb2.HistoryPiece:
    """As a session process reads what neonize hands over."""
    whole = neonize.HistorySync(Data=history).SerializePartialToString()
    return worker_pb2.HistoryPiece.FromString(whole)


def told(history: wa.HistorySync) -> history_pb2.HistorySync:
    return synced(read(history)).event.history_sync


def test_everything_is_counted_where_whatsapp_has_it() -> None:
    history = wa.HistorySync(syncType=wa.HistorySync.FULL, chunkOrder=2, progress=70)
    for chat in range(3):
        conversation = history.conversations.add(ID=f"{chat}@lid", name="a name")
        for nth in range(chat):
            entry = conversation.messages.add(msgOrderID=nth)
            entry.message.key.ID = "A"
            entry.message.message.conversation = "secret words"
            entry.message.messageTimestamp = THEN + 10 * chat + nth
    history.statusV3Messages.add(messageTimestamp=THEN - 5)
    history.pushnames.add(ID="1@lid", pushname="Carol")
    expected = history_pb2.HistorySync(
        kind=history_pb2.HistorySync.KIND_FULL,
        chunk=2,
        progress_percent=70,
        conversations=3,
        messages=4,
        push_names=1,
    )
    expected.oldest_message_time.FromSeconds(THEN - 5)
    expected.newest_message_time.FromSeconds(THEN + 21)
    frame = synced(read(history))
    assert frame.event.history_sync == expected
    assert b"secret words" not in frame.SerializeToString()


def test_every_kind_of_whatsapps_has_one_of_ours() -> None:
    kinds = [told(wa.HistorySync(syncType=number)).kind for number in wa.HistorySync.HistorySyncType.values()]
    named = set(history_pb2.HistorySync.Kind.values()) - {history_pb2.HistorySync.KIND_UNSPECIFIED}
    assert set(kinds) == named
    assert len(kinds) == len(named)


def test_what_is_empty_has_no_times_and_no_progress() -> None:
    assert told(wa.HistorySync(syncType=wa.HistorySync.PUSH_NAME)) == history_pb2.HistorySync(
        kind=history_pb2.HistorySync.KIND_PUSH_NAMES
    )


def test_a_kind_that_nobody_knows_and_times_that_cannot_be_are_left_out() -> None:
    piece = worker_pb2.HistoryPiece()
    piece.data.sync_type, piece.data.progress = 99, 1000
    piece.data.conversations.add().messages.add().message.timestamp = 2**63
    piece.data.status_messages.add()
    assert synced(piece).event.history_sync == history_pb2.HistorySync(
        progress_percent=100, conversations=1, messages=2
    )
